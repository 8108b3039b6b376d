"""Settings, read once at the edge into one frozen value: defaults < p2pos.toml < P2POS_* < flags.

`<home>/p2pos.toml` holds the same names as `Settings`. The environment holds them in capitals after `P2POS_`.
`p2pos devnet up` writes the file, so that every other command run with the same `--home` finds the devnet.
"""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from p2pos.errors import UserError

FILE_NAME = "p2pos.toml"


class Settings(BaseSettings):
    """Every setting of every command. Frozen; build it with `load`."""

    model_config = SettingsConfigDict(env_prefix="P2POS_", frozen=True, extra="forbid")

    home: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("p2pos")))
    """Identity, wallets, queue, index: what must outlive a process."""
    cache: Path = Field(default_factory=lambda: Path(platformdirs.user_cache_dir("p2pos")))
    """What can be made again: models from a hub, manifests of local ones, tools."""

    bootstrap: Annotated[tuple[str, ...], NoDecode] = ()
    """Multiaddresses with /p2p/ of peers to join through; in the environment, separated by commas."""
    swarm_key_file: Path | None = None
    """A file (mode 0600) with the key of a private swarm."""
    model: str = ""
    """A model directory, a model's id, its name on a hub, or "" for the one that ships with the package."""
    offline: bool = False
    """Fetch no model, from a hub or from peers: use what is here."""

    rpc_url: Annotated[tuple[str, ...], NoDecode] = ()
    """The chain's JSON-RPC end point, or several of the same chain; in the environment, separated by commas."""
    chain_id: int = 0
    """The chain id that rpc_url must answer with; 0 takes what it says."""
    contract: str = ""
    """Address of the assets contract."""
    confirmations: int = Field(default=1, ge=1)
    """Blocks, its own included, after which a transaction counts as settled."""
    max_fee: Decimal = Field(default=Decimal(2000), gt=0, max_digits=20)
    """The most that a relayer offers per gas, in gwei, the tip included."""
    index_url: SecretStr = SecretStr("")
    """A PostgreSQL database for the index of the chain, with or without a password in it; "" is a file at home."""
    relayer_url: str = ""
    """HTTP end point of a relayer."""

    passphrase_file: Path | None = None
    """A file (mode 0600) whose first line opens the wallets; for unattended use."""

    api_token_file: Path | None = None
    """A file (mode 0600) whose first line requests to a node's HTTP interface must bear."""

    @field_validator("bootstrap", "rpc_url", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        return tuple(part for part in value.split(",") if part) if isinstance(value, str) else value

    @property
    def wallets(self) -> Path:
        """Directory of the keystores."""
        return self.home / "wallets"

    @property
    def content(self) -> Path:
        """Directory of the descriptors and files of items."""
        return self.home / "content"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - fixed by the library
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - fixed by the library
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources, strongest first."""
        home = init_settings().get("home") or env_settings().get("home") or platformdirs.user_data_dir("p2pos")
        toml = TomlConfigSettingsSource(settings_cls, toml_file=Path(home) / FILE_NAME)
        return init_settings, env_settings, toml


def load(**flags: Any) -> Settings:
    """Read the settings. Flags that are None were not given.

    Raises UserError that names the setting and its fault.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"setting {name}: {first['msg']}", hint=f"see {FILE_NAME}, P2POS_{name.upper()} or the flag"
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise UserError(f"{FILE_NAME} is not valid TOML: {exc}") from exc
