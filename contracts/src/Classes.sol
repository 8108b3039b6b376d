// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC2981} from "@openzeppelin/contracts/interfaces/IERC2981.sol";
import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {IERC1155MetadataURI} from "@openzeppelin/contracts/token/ERC1155/extensions/IERC1155MetadataURI.sol";
import {Bytes} from "@openzeppelin/contracts/utils/Bytes.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {ERC165, IERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Holdings} from "./Holdings.sol";

/// @title What kinds of items there are, who makes them, and what describes them
abstract contract Classes is Holdings, IERC1155MetadataURI, IERC2981 {
    using Bytes for bytes;

    /// @notice Who may give a class a new descriptor, and how fast.
    enum Policy {
        /// @notice nobody, ever
        FROZEN,
        /// @notice its issuer, at once
        ISSUER,
        /// @notice its issuer, a fixed time after having said so
        DELAYED
    }

    /// @notice What an issuer fixes for good when making a class.
    struct Terms {
        /// @notice the most units that may ever be made, burned ones included; 0 for no cap
        uint128 cap;
        /// @notice whether units never change hands; their holder may burn them
        bool soulbound;
        /// @notice who may give it a new descriptor
        Policy policy;
        /// @notice seconds from an update's proposal to its effect: above zero, at most 365 days, for DELAYED; else 0
        uint32 delay;
        /// @notice who should get a share of each sale; zero where nobody should
        address royaltyReceiver;
        /// @notice that share in 1/10000 of the price, at most 5000
        uint16 royaltyBps;
    }

    /// @notice A class as {classOf} tells of it.
    struct ClassInfo {
        /// @notice who made it; zero where there is no such class
        address issuer;
        /// @notice the most units that may ever be made; 0 for no cap
        uint128 cap;
        /// @notice units ever made
        uint128 minted;
        /// @notice units burned
        uint128 burned;
        /// @notice sha2-256 of the canonical JSON that describes the class now
        bytes32 digest;
        /// @notice of the descriptor: 1, and one more with each update
        uint32 version;
        bool soulbound;
        Policy policy;
        uint32 delay;
        address royaltyReceiver;
        uint16 royaltyBps;
    }

    // ----------------------------------------------------------------------------------------------------- constants

    /// @dev The longest delay of an update. Longer ones say FROZEN.
    uint32 private constant MAX_DELAY_SECONDS = 365 days;

    /// @dev The greatest royalty, half the price: above it a sale gives most to one who doesn't sell.
    uint16 private constant MAX_ROYALTY_BPS = 5_000;

    uint256 private constant BPS = 10_000;

    /// @dev What {BadTerms} says.
    uint8 private constant BAD_DELAY = 1;
    uint8 private constant BAD_ROYALTY = 2;

    /// @dev Multibase and CIDv1 prefix in base 16: `f`, version 01, codec raw 55, sha2-256 12, 32 bytes 20.
    string private constant CID_PREFIX = "ipfs://f01551220";

    // --------------------------------------------------------------------------------------------------------- state

    /// @dev A class of items, packed into as few storage slots as its use touches: the first and second for minting, the
    /// first, third and fourth for updates.
    struct Class {
        address issuer;
        uint32 version;
        uint32 delay;
        uint16 royaltyBps;
        Policy policy;
        bool soulbound;
        // ----
        uint128 cap;
        uint128 minted;
        // ----
        bytes32 digest;
        // ----
        uint128 burned;
        uint64 pendingFrom; // when a proposed update may take effect; 0 where none is proposed
        // ----
        bytes32 pendingDigest;
        // ----
        address royaltyReceiver;
    }

    mapping(uint256 id => Class) private _classes;

    mapping(uint256 id => mapping(address minter => uint128 allowance)) private _minters;

    // -------------------------------------------------------------------------------------------------------- events

    /// @notice A class exists from now on, with version 1 of its descriptor.
    event ClassCreated(
        uint256 indexed id,
        address indexed issuer,
        uint128 cap,
        bytes32 digest,
        bool soulbound,
        uint8 policy,
        uint32 delay,
        address royaltyReceiver,
        uint16 royaltyBps
    );

    /// @notice The minter may make so many units from now on, whatever it was before. What it makes counts down silently:
    /// a mint by another than the issuer is known by its operator.
    event MinterSet(uint256 indexed id, address indexed minter, uint128 allowance);

    /// @notice The class may get this descriptor, as this version, from that moment on.
    event UpdateProposed(uint256 indexed id, uint32 indexed version, bytes32 digest, uint64 from);

    /// @notice It won't.
    event UpdateWithdrawn(uint256 indexed id, uint32 indexed version);

    /// @notice The class has a new descriptor.
    event ClassUpdated(uint256 indexed id, uint32 indexed version, bytes32 digest, bytes32 previous);

    // -------------------------------------------------------------------------------------------------------- errors

    /// @notice The issuer already made a class with this salt.
    error ClassExists(uint256 id);
    /// @notice No class has this id.
    error UnknownClass(uint256 id);
    /// @notice Only the issuer of a class may do this.
    error NotIssuer(uint256 id, address caller);
    /// @notice The caller is not the issuer, and as a minter may make only `allowance` units more.
    error NotMinter(uint256 id, address caller, uint256 allowance);
    /// @notice The units ever made would be `wanted`, above `cap` (2**128 - 1 for a class without one).
    error CapExceeded(uint256 id, uint128 cap, uint256 wanted);
    /// @notice The terms of a class contradict themselves or go too far: 1 in the delay, 2 in the royalty.
    error BadTerms(uint8 what);
    /// @notice Nobody may give this class another descriptor.
    error ClassFrozen(uint256 id);
    /// @notice No update of this class is proposed.
    error NoUpdate(uint256 id);
    /// @notice The update may take effect only from then on.
    error UpdateNotDue(uint256 id, uint64 from);

    // ------------------------------------------------------------------------------------------------------- issuing

    /// @notice Make a class of items of which the caller is the issuer, for good.
    /// @param salt the issuer's choice; with the issuer's address it gives the id, which is thus known beforehand.
    /// @param terms what never changes.
    /// @param digest sha2-256 of the canonical JSON that describes the class.
    /// @return id keccak256(abi.encode(issuer, salt)).
    function createClass(bytes32 salt, Terms calldata terms, bytes32 digest) external returns (uint256 id) {
        bool delayed = terms.policy == Policy.DELAYED;
        if (delayed != (terms.delay != 0) || terms.delay > MAX_DELAY_SECONDS) revert BadTerms(BAD_DELAY);
        bool royalty = terms.royaltyReceiver != address(0);
        if (royalty != (terms.royaltyBps != 0) || terms.royaltyBps > MAX_ROYALTY_BPS) revert BadTerms(BAD_ROYALTY);
        id = uint256(keccak256(abi.encode(msg.sender, salt)));
        Class storage class = _classes[id];
        if (class.issuer != address(0)) revert ClassExists(id);
        class.issuer = msg.sender;
        class.version = 1;
        class.delay = terms.delay;
        class.royaltyBps = terms.royaltyBps;
        class.policy = terms.policy;
        class.soulbound = terms.soulbound;
        class.cap = terms.cap;
        class.digest = digest;
        if (royalty) class.royaltyReceiver = terms.royaltyReceiver;
        emit ClassCreated(
            id,
            msg.sender,
            terms.cap,
            digest,
            terms.soulbound,
            uint8(terms.policy),
            terms.delay,
            terms.royaltyReceiver,
            terms.royaltyBps
        );
    }

    /// @notice Make `amount` new units for `to`: the issuer, or a minter within its allowance, and nobody beyond the cap.
    /// @dev A receiver that is a contract must accept them by its ERC-1155 hook, which runs last.
    function mint(address to, uint256 id, uint256 amount) external {
        Class storage class = _classes[id];
        address issuer = class.issuer;
        if (issuer == address(0)) revert UnknownClass(id);
        if (issuer != msg.sender) _useMinter(id, amount);
        uint128 limit = class.cap == 0 ? type(uint128).max : class.cap;
        uint256 wanted = Math.saturatingAdd(class.minted, amount);
        if (wanted > limit) revert CapExceeded(id, limit, wanted);
        // forge-lint: disable-next-line(unsafe-typecast) wanted <= limit, which is a uint128
        class.minted = uint128(wanted);
        _make(to, id, amount, class.soulbound);
        _ask(address(0), to, id, amount);
    }

    /// @notice Let an account make up to `allowance` units of a class, from now on; 0 takes the right away.
    function setMinter(uint256 id, address minter, uint128 allowance) external {
        _issued(id);
        _minters[id][minter] = allowance;
        emit MinterSet(id, minter, allowance);
    }

    /// @notice Destroy units of the caller's that are not locked for a world. They still count against the cap.
    function burn(uint256 id, uint256 amount) external {
        _burn(msg.sender, id, amount, _isSoulbound(id));
    }

    // ------------------------------------------------------------------------------------------------------- updates

    /// @notice Give a class a new descriptor: at once, or, of a class with a delay, propose it in place of any other
    /// proposal. Only its issuer may, as far as the class's policy lets anybody.
    function updateClass(uint256 id, bytes32 digest) external {
        Class storage class = _issued(id);
        Policy policy = class.policy;
        if (policy == Policy.FROZEN) revert ClassFrozen(id);
        if (policy == Policy.ISSUER) {
            _update(class, id, digest);
        } else {
            uint64 from = uint64(block.timestamp + class.delay);
            class.pendingFrom = from;
            class.pendingDigest = digest;
            emit UpdateProposed(id, class.version + 1, digest, from);
        }
    }

    /// @notice Let a proposed update take effect, once its delay is over. Anyone may.
    function applyUpdate(uint256 id) external {
        Class storage class = _classes[id];
        uint64 from = class.pendingFrom;
        if (from == 0) revert NoUpdate(id);
        if (block.timestamp < from) revert UpdateNotDue(id, from);
        bytes32 digest = class.pendingDigest;
        _forget(class);
        _update(class, id, digest);
    }

    /// @notice Take a proposed update back, due or not. Only the issuer may.
    function withdrawUpdate(uint256 id) external {
        Class storage class = _issued(id);
        if (class.pendingFrom == 0) revert NoUpdate(id);
        _forget(class);
        emit UpdateWithdrawn(id, class.version + 1);
    }

    // --------------------------------------------------------------------------------------------------------- views

    /// @notice What a class is; all zero where there is none.
    function classOf(uint256 id) external view returns (ClassInfo memory) {
        Class storage class = _classes[id];
        return ClassInfo({
            issuer: class.issuer,
            cap: class.cap,
            minted: class.minted,
            burned: class.burned,
            digest: class.digest,
            version: class.version,
            soulbound: class.soulbound,
            policy: class.policy,
            delay: class.delay,
            royaltyReceiver: class.royaltyReceiver,
            royaltyBps: class.royaltyBps
        });
    }

    /// @notice The descriptor that is proposed, and from when it may take effect; zeros where none is.
    function pendingUpdateOf(uint256 id) external view returns (bytes32 digest, uint64 from) {
        Class storage class = _classes[id];
        return (class.pendingDigest, class.pendingFrom);
    }

    /// @notice How many units of a class an account may still make besides its issuer.
    function mintAllowance(uint256 id, address minter) external view returns (uint128) {
        return _minters[id][minter];
    }

    /// @notice How many units of a class there are now.
    function totalSupply(uint256 id) external view returns (uint256) {
        Class storage class = _classes[id];
        return class.minted - class.burned;
    }

    /// @notice What share of a sale the issuer asks for (ERC-2981), rounded down. Nothing enforces it.
    function royaltyInfo(uint256 id, uint256 salePrice) external view returns (address receiver, uint256 amount) {
        Class storage class = _classes[id];
        return (class.royaltyReceiver, Math.mulDiv(salePrice, class.royaltyBps, BPS));
    }

    /// @notice Where the class's descriptor lies: its digest as an IPFS address (CIDv1, raw, base 16).
    function uri(uint256 id) external view returns (string memory) {
        Class storage class = _classes[id];
        if (class.issuer == address(0)) revert UnknownClass(id);
        return _address(class.digest);
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) public view virtual override(ERC165, IERC165) returns (bool) {
        return interfaceId == type(IERC1155).interfaceId || interfaceId == type(IERC1155MetadataURI).interfaceId
            || interfaceId == type(IERC2981).interfaceId || super.supportsInterface(interfaceId);
    }

    // ------------------------------------------------------------------------------------------------------ internal

    /// @dev Destroy units of anybody's; the caller made sure that their owner agrees. With `soulbound` false, units of a
    /// soulbound class are refused as locked.
    function _burn(address owner, uint256 id, uint256 amount, bool soulbound) internal {
        _end(owner, id, amount, soulbound);
        // forge-lint: disable-next-line(unsafe-typecast) amount <= the balance <= minted - burned
        unchecked {
            _classes[id].burned += uint128(amount);
        }
    }

    function _isSoulbound(uint256 id) internal view override returns (bool) {
        return _classes[id].soulbound;
    }

    /// @dev A class of the caller's.
    function _issued(uint256 id) private view returns (Class storage class) {
        class = _classes[id];
        if (class.issuer == address(0)) revert UnknownClass(id);
        if (class.issuer != msg.sender) revert NotIssuer(id, msg.sender);
    }

    function _useMinter(uint256 id, uint256 amount) private {
        uint256 allowance = _minters[id][msg.sender];
        // an allowance of nothing doesn't let anyone mint nothing: that would put events in strangers' names
        if (allowance == 0 || amount > allowance) revert NotMinter(id, msg.sender, allowance);
        // forge-lint: disable-next-line(unsafe-typecast) allowance is a uint128
        _minters[id][msg.sender] = uint128(allowance - amount);
    }

    function _update(Class storage class, uint256 id, bytes32 digest) private {
        bytes32 previous = class.digest;
        uint32 version = class.version + 1;
        class.version = version;
        class.digest = digest;
        emit ClassUpdated(id, version, digest, previous);
        emit URI(_address(digest), id);
    }

    function _forget(Class storage class) private {
        class.pendingFrom = 0;
        class.pendingDigest = 0;
    }

    function _address(bytes32 digest) private pure returns (string memory) {
        bytes memory hexadecimal = bytes(Strings.toHexString(uint256(digest), 32));
        return string.concat(CID_PREFIX, string(hexadecimal.slice(2)));
    }
}
