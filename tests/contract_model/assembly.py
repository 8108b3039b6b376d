"""An assembler of forty lines, for the small contracts that the tests put behind an address. Pure."""

_OPCODES = {
    name: code
    for code, name in {
        0x00: "stop", 0x01: "add", 0x03: "sub", 0x10: "lt", 0x14: "eq", 0x15: "iszero", 0x16: "and", 0x18: "xor",
        0x19: "not", 0x1A: "byte", 0x1B: "shl", 0x1C: "shr", 0x20: "keccak256", 0x33: "caller",
        0x35: "calldataload", 0x36: "calldatasize", 0x37: "calldatacopy", 0x3D: "returndatasize",
        0x3E: "returndatacopy", 0x50: "pop", 0x51: "mload", 0x52: "mstore", 0x54: "sload", 0x55: "sstore",
        0x56: "jump", 0x57: "jumpi", 0x5A: "gas", 0x80: "dup1", 0x81: "dup2", 0x90: "swap1", 0xF1: "call",
        0xF3: "return", 0xFD: "revert", 0xFE: "invalid",
    }.items()
}  # fmt: skip
_JUMPDEST, _PUSH0, _PUSH1, _PUSH2 = 0x5B, 0x5F, 0x60, 0x61


def assemble(source: str) -> bytes:
    """Bytecode of a program of words: an opcode, a number to push, `name:` a place to jump to, `@name` that place.

    What follows a `;` is a comment. Raises ValueError at a word that is none of these, KeyError at an unknown place.
    """
    code = bytearray()
    places: dict[str, int] = {}
    uses: list[tuple[int, str]] = []
    for token in (token for line in source.splitlines() for token in line.split(";")[0].split()):
        if token.endswith(":"):
            places[token[:-1]] = len(code)
            code.append(_JUMPDEST)
        elif token.startswith("@"):
            uses.append((len(code) + 1, token[1:]))
            code += bytes((_PUSH2, 0, 0))
        elif token in _OPCODES:
            code.append(_OPCODES[token])
        elif (value := int(token, 0)) == 0:
            code.append(_PUSH0)
        else:
            literal = value.to_bytes((value.bit_length() + 7) // 8, "big")
            code += bytes((_PUSH1 - 1 + len(literal),)) + literal
    for at, name in uses:
        code[at : at + 2] = places[name].to_bytes(2, "big")
    return bytes(code)
