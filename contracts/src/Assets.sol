// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC1155} from "@openzeppelin/contracts/token/ERC1155/ERC1155.sol";
import {Bytes} from "@openzeppelin/contracts/utils/Bytes.sol";
import {Strings} from "@openzeppelin/contracts/utils/Strings.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title Items that belong to a wallet and travel between worlds
/// @notice An ERC-1155 ledger whose holders act by signature: they sign, anyone submits and pays the gas.
///
/// A class is what its issuer made it when it was created: its cap and its descriptor never change. A cap of 1 makes
/// its item unique; a class without a cap serves as a currency.
///
/// Nobody owns this contract: it has no administrator, no pause and no upgrade. Whoever holds an item moves it, by a
/// call of the ERC-1155 standard or by a signed {Transfer}; whoever issued a class mints it within its cap.
///
/// @dev Every state change precedes the only calls into foreign code that can write: the receiver hooks of ERC-1155.
/// (ERC-1271 wallets are asked by STATICCALL.) So a hook that re-enters finds the ledger settled.
contract Assets is ERC1155, EIP712 {
    using Bytes for bytes;

    // ------------------------------------------------------------------------------------------------ what is signed

    /// @notice What a holder signs to move an item.
    struct Transfer {
        /// @notice whose item it is, and who signs
        address from;
        /// @notice who gets it; never the zero address
        address to;
        /// @notice the class
        uint256 id;
        /// @notice how many units
        uint256 amount;
        /// @notice any number that `from` has not used: the order doesn't matter, each is good once
        uint256 nonce;
        /// @notice the last moment at which it may be submitted, in seconds of Unix time
        uint256 deadline;
    }

    /// @notice What a holder signs to carry an item into a world: the item stays in the wallet but can't move.
    struct Lock {
        /// @notice whose item it is, and who signs
        address owner;
        /// @notice the account of the world, which may release the item early
        address world;
        /// @notice the class
        uint256 id;
        /// @notice how many units; more than zero
        uint256 amount;
        /// @notice when anyone may release the item, in seconds of Unix time
        uint64 until;
        /// @notice any number that `owner` has not used, in the same space as a transfer's
        uint256 nonce;
        /// @notice the last moment at which it may be submitted, in seconds of Unix time
        uint256 deadline;
    }

    // ----------------------------------------------------------------------------------------------------- constants

    /// @notice EIP-712 type hash of {Transfer}.
    bytes32 public constant TRANSFER_TYPEHASH =
        keccak256("Transfer(address from,address to,uint256 id,uint256 amount,uint256 nonce,uint256 deadline)");

    /// @notice EIP-712 type hash of {Lock}.
    bytes32 public constant LOCK_TYPEHASH = keccak256(
        "Lock(address owner,address world,uint256 id,uint256 amount,uint64 until,uint256 nonce,uint256 deadline)"
    );

    /// @notice The longest that a lock may last, in seconds. A world that vanishes can't release what was carried into
    /// it, so this is the longest that its end can hold an item. A week covers a visit of any length that people make
    /// in one go; who stays longer signs again.
    uint64 public constant MAX_LOCK_SECONDS = 7 days;

    /// @notice The least gas that a batch must grant each intent, so that no relayer can make one fail by granting too
    /// little: a third more than a transfer between plain accounts takes where every storage slot is cold and new, which
    /// is 72,000 with its calldata (test/Gas.t.sol).
    uint256 public constant MIN_GAS_PER_INTENT = 100_000;

    /// @dev Gas between the check of what is left and the call that it protects, generously: the call's own price
    /// (100, this address being warm) and some stack operations.
    uint256 private constant CALL_OVERHEAD_GAS = 1_000;

    /// @dev Bytes of an intent's revert data that {IntentFailed} carries. The longest error here or in OpenZeppelin's
    /// ERC-1155 has 132 (a selector and four words); a receiver may return a megabyte, and the relayer would pay.
    uint256 private constant MAX_REASON_BYTES = 256;

    /// @dev Multibase and CIDv1 prefix in base 16: `f`, version 01, codec raw 55, sha2-256 12, 32 bytes 20.
    string private constant CID_PREFIX = "ipfs://f01551220";

    // --------------------------------------------------------------------------------------------------------- state

    /// @dev A class of items. `cap` and `supply` share one storage slot.
    struct Class {
        address issuer;
        uint128 cap;
        uint128 supply;
        bytes32 digest;
    }

    /// @dev A lock in force, in one storage slot. A supply never passes 2**128 - 1, so no locked amount does.
    struct Hold {
        uint128 amount;
        uint64 until;
    }

    mapping(uint256 id => Class) private _classes;

    /// @dev Bit `nonce & 255` of word `nonce >> 8` is set once the nonce is used or cancelled.
    mapping(address owner => mapping(uint248 word => uint256 bits)) private _nonces;

    mapping(address owner => mapping(uint256 id => uint256 amount)) private _locked;

    mapping(address owner => mapping(uint256 id => mapping(address world => Hold))) private _holds;

    // -------------------------------------------------------------------------------------------------------- events

    /// @notice A class exists from now on.
    event ClassCreated(uint256 indexed id, address indexed issuer, uint128 cap, bytes32 digest);

    /// @notice A signed intent with this nonce took effect.
    event NonceUsed(address indexed owner, uint256 indexed nonce);

    /// @notice The owner made this nonce worthless: what was signed with it will never take effect.
    event NonceCancelled(address indexed owner, uint256 indexed nonce);

    /// @notice An intent of a batch changed nothing, and its nonce is as it was. Not a final verdict: anyone may submit
    /// any bytes in anyone's name, so only {isNonceUsed} and the deadline say whether an intent is over.
    /// @param reason the first 256 bytes of its revert data; empty where it ran out of gas.
    event IntentFailed(address indexed from, uint256 indexed nonce, bytes reason);

    /// @notice `amount` units stay in the owner's wallet, unable to move, until released.
    event Locked(address indexed owner, address indexed world, uint256 indexed id, uint256 amount, uint64 until);

    /// @notice `amount` units may move again.
    event Unlocked(address indexed owner, address indexed world, uint256 indexed id, uint256 amount);

    // -------------------------------------------------------------------------------------------------------- errors

    /// @notice The issuer already made a class with this salt.
    error ClassExists(uint256 id);
    /// @notice No class has this id.
    error UnknownClass(uint256 id);
    /// @notice Only the issuer of a class mints it.
    error NotIssuer(uint256 id, address caller);
    /// @notice The supply would be `wanted`, above `cap` (2**128 - 1 for a class without one).
    error CapExceeded(uint256 id, uint128 cap, uint256 wanted);
    /// @notice The intent was good until `deadline`.
    error IntentExpired(uint256 deadline);
    /// @notice The nonce was used or cancelled.
    error NonceAlreadyUsed(address owner, uint256 nonce);
    /// @notice The signature is not by `signer` over this intent for this contract on this chain.
    error BadSignature(address signer);
    /// @notice Only `free` units of the owner's are not locked.
    error ItemLocked(address owner, uint256 id, uint256 free);
    /// @notice A lock needs more than zero units and a world.
    error EmptyLock(address world, uint256 amount);
    /// @notice The end of a lock must lie after now and no later than `latest`.
    error LockTimeOutOfRange(uint64 until, uint256 latest);
    /// @notice The owner's item is already locked for this world: release it first.
    error AlreadyLocked(address owner, address world, uint256 id);
    /// @notice Nothing of the owner's is locked for this world.
    error NotLocked(address owner, address world, uint256 id);
    /// @notice Before `until` only the world may release it.
    error StillLocked(address owner, address world, uint256 id, uint64 until);
    /// @notice Each intent of a batch needs its signature.
    error LengthMismatch(uint256 intents, uint256 signatures);
    /// @notice A batch must grant each intent at least `least` gas.
    error GasPerIntentTooLow(uint256 gasPerIntent, uint256 least);
    /// @notice The transaction has too little gas left to grant an intent what the batch promises.
    error NotEnoughGas(uint256 left, uint256 needed);

    /// @dev The EIP-712 domain is (p2pos, 1, this chain, this contract).
    constructor() ERC1155("") EIP712("p2pos", "1") {}

    // ------------------------------------------------------------------------------------------------------- classes

    /// @notice Make a class of items of which the caller is the issuer, for good.
    /// @param salt the issuer's choice; with the issuer's address it gives the id, which is thus known beforehand.
    /// @param cap the most units that may ever exist; 0 for no cap.
    /// @param digest sha2-256 of the canonical JSON that describes the class.
    /// @return id keccak256(abi.encode(issuer, salt)).
    function createClass(bytes32 salt, uint128 cap, bytes32 digest) external returns (uint256 id) {
        id = uint256(keccak256(abi.encode(msg.sender, salt)));
        Class storage class = _classes[id];
        if (class.issuer != address(0)) revert ClassExists(id);
        class.issuer = msg.sender;
        class.cap = cap;
        class.digest = digest;
        emit ClassCreated(id, msg.sender, cap, digest);
    }

    /// @notice Make `amount` new units for `to`. Only the issuer may, within the cap.
    /// @dev A receiver that is a contract must accept them by its ERC-1155 hook, which runs last.
    function mint(address to, uint256 id, uint256 amount) external {
        Class storage class = _classes[id];
        address issuer = class.issuer;
        if (issuer == address(0)) revert UnknownClass(id);
        if (issuer != msg.sender) revert NotIssuer(id, msg.sender);
        uint128 limit = class.cap == 0 ? type(uint128).max : class.cap;
        uint256 wanted = Math.saturatingAdd(class.supply, amount);
        if (wanted > limit) revert CapExceeded(id, limit, wanted);
        // forge-lint: disable-next-line(unsafe-typecast) wanted <= limit, which is a uint128
        class.supply = uint128(wanted);
        _mint(to, id, amount, "");
    }

    /// @notice What a class is; all zero where there is none.
    function classOf(uint256 id) external view returns (address issuer, uint128 cap, uint128 supply, bytes32 digest) {
        Class storage class = _classes[id];
        return (class.issuer, class.cap, class.supply, class.digest);
    }

    /// @notice Where the class's descriptor lies: its digest as an IPFS address (CIDv1, raw, base 16).
    function uri(uint256 id) public view override returns (string memory) {
        Class storage class = _classes[id];
        if (class.issuer == address(0)) revert UnknownClass(id);
        bytes memory hexadecimal = bytes(Strings.toHexString(uint256(class.digest), 32));
        return string.concat(CID_PREFIX, string(hexadecimal.slice(2)));
    }

    // ------------------------------------------------------------------------------------------------------- intents

    /// @notice Carry out a transfer that its holder signed. Anyone may.
    /// @param signature 65 bytes by the key of `intent.from`, or whatever its contract accepts by ERC-1271.
    /// @dev {relay} calls it too, by DELEGATECALL, so that the operator named in events and hooks is the relayer.
    function transferWithSignature(Transfer calldata intent, bytes calldata signature) external {
        _useIntent(intent.from, intent.nonce, intent.deadline, hashTransfer(intent), signature);
        _safeTransferFrom(intent.from, intent.to, intent.id, intent.amount, "");
    }

    /// @notice Carry out many signed transfers, skipping and reporting those that fail. Anyone may.
    /// @param intents the transfers, carried out in this order.
    /// @param signatures one for each.
    /// @param gasPerIntent the most gas that one intent may take, so that a hostile receiver can't use up the rest;
    /// at least {MIN_GAS_PER_INTENT}.
    /// @return succeeded how many took effect.
    /// @dev Reverts as a whole, changing nothing, rather than grant an intent less gas than promised: so a relayer
    /// can't make a good intent fail, and an estimate of the batch's gas comes out high enough.
    function relay(Transfer[] calldata intents, bytes[] calldata signatures, uint256 gasPerIntent)
        external
        returns (uint256 succeeded)
    {
        if (intents.length != signatures.length) revert LengthMismatch(intents.length, signatures.length);
        if (gasPerIntent < MIN_GAS_PER_INTENT) revert GasPerIntentTooLow(gasPerIntent, MIN_GAS_PER_INTENT);
        // EIP-150: a call gets at most 63/64 of what is left.
        uint256 needed = Math.saturatingAdd(gasPerIntent, gasPerIntent / 63 + CALL_OVERHEAD_GAS);
        for (uint256 i = 0; i < intents.length; ++i) {
            bytes memory call = abi.encodeCall(this.transferWithSignature, (intents[i], signatures[i]));
            if (gasleft() < needed) revert NotEnoughGas(gasleft(), needed);
            (bool success, bytes memory reason) = _callSelf(call, gasPerIntent);
            if (success) ++succeeded;
            else emit IntentFailed(intents[i].from, intents[i].nonce, reason);
        }
    }

    /// @notice Make one of the caller's nonces worthless, and with it whatever was signed with it.
    /// @dev Who has no gas signs a transfer of 0 units to themselves with that nonce, for any relayer to submit.
    function cancel(uint256 nonce) external {
        _useNonce(msg.sender, nonce);
        emit NonceCancelled(msg.sender, nonce);
    }

    /// @notice Whether the nonce was used or cancelled.
    function isNonceUsed(address owner, uint256 nonce) external view returns (bool) {
        (uint248 word, uint256 bit) = _nonceBit(nonce);
        return _nonces[owner][word] & bit != 0;
    }

    /// @notice The 32 bytes that `intent.from` signs.
    function hashTransfer(Transfer calldata intent) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    TRANSFER_TYPEHASH, intent.from, intent.to, intent.id, intent.amount, intent.nonce, intent.deadline
                )
            )
        );
    }

    // --------------------------------------------------------------------------------------------------------- locks

    /// @notice Lock an item for a world as its holder signed. Anyone may submit it.
    /// @param signature as for {transferWithSignature}.
    function lockWithSignature(Lock calldata intent, bytes calldata signature) external {
        (address owner, address world, uint256 id) = (intent.owner, intent.world, intent.id);
        (uint256 amount, uint64 until) = (intent.amount, intent.until);
        _useIntent(owner, intent.nonce, intent.deadline, hashLock(intent), signature);
        if (world == address(0) || amount == 0) revert EmptyLock(world, amount);
        uint256 latest = block.timestamp + MAX_LOCK_SECONDS;
        if (until <= block.timestamp || until > latest) revert LockTimeOutOfRange(until, latest);
        Hold storage hold = _holds[owner][id][world];
        if (hold.amount != 0) revert AlreadyLocked(owner, world, id);
        uint256 balance = balanceOf(owner, id);
        uint256 locked = _locked[owner][id];
        if (amount > balance) revert ERC1155InsufficientBalance(owner, balance, amount, id);
        if (amount > balance - locked) revert ItemLocked(owner, id, balance - locked);
        // forge-lint: disable-next-line(unsafe-typecast) amount <= balance <= the class's supply, a uint128
        (hold.amount, hold.until) = (uint128(amount), until);
        _locked[owner][id] = locked + amount;
        emit Locked(owner, world, id, amount, until);
    }

    /// @notice Release what is locked for a world: the world at any time, anyone once its time is over.
    function unlock(address owner, address world, uint256 id) external {
        Hold memory hold = _holds[owner][id][world];
        if (hold.amount == 0) revert NotLocked(owner, world, id);
        if (msg.sender != world && block.timestamp < hold.until) {
            revert StillLocked(owner, world, id, hold.until);
        }
        delete _holds[owner][id][world];
        _locked[owner][id] -= hold.amount;
        emit Unlocked(owner, world, id, hold.amount);
    }

    /// @notice How many of the owner's units can't move.
    function lockedOf(address owner, uint256 id) external view returns (uint256) {
        return _locked[owner][id];
    }

    /// @notice What is locked for one world, and until when anyone else has to wait; zeros where nothing is.
    function lockOf(address owner, uint256 id, address world) external view returns (uint256 amount, uint64 until) {
        Hold storage hold = _holds[owner][id][world];
        return (hold.amount, hold.until);
    }

    /// @notice The 32 bytes that `intent.owner` signs.
    function hashLock(Lock calldata intent) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    LOCK_TYPEHASH,
                    intent.owner,
                    intent.world,
                    intent.id,
                    intent.amount,
                    intent.until,
                    intent.nonce,
                    intent.deadline
                )
            )
        );
    }

    // ------------------------------------------------------------------------------------------------------ internal

    /// @dev Every movement passes here, whoever asked for it. The check comes after the balances changed, so that a
    /// batch that names one class twice can't take more than is free.
    function _update(address from, address to, uint256[] memory ids, uint256[] memory values) internal override {
        super._update(from, to, ids, values);
        if (from == address(0)) return;
        for (uint256 i = 0; i < ids.length; ++i) {
            uint256 locked = _locked[from][ids[i]];
            if (locked == 0) continue;
            uint256 left = balanceOf(from, ids[i]);
            if (left < locked) revert ItemLocked(from, ids[i], Math.saturatingSub(left + values[i], locked));
        }
    }

    /// @dev An intent is good once, in time, and only by its signer's will.
    function _useIntent(address signer, uint256 nonce, uint256 deadline, bytes32 hash, bytes calldata signature)
        private
    {
        if (block.timestamp > deadline) revert IntentExpired(deadline);
        _useNonce(signer, nonce);
        if (!SignatureChecker.isValidSignatureNowCalldata(signer, hash, signature)) revert BadSignature(signer);
        emit NonceUsed(signer, nonce);
    }

    function _useNonce(address owner, uint256 nonce) private {
        (uint248 word, uint256 bit) = _nonceBit(nonce);
        uint256 bits = _nonces[owner][word];
        if (bits & bit != 0) revert NonceAlreadyUsed(owner, nonce);
        _nonces[owner][word] = bits | bit;
    }

    function _nonceBit(uint256 nonce) private pure returns (uint248 word, uint256 bit) {
        // forge-lint: disable-next-line(unsafe-typecast) 256 - 8 bits are left after the shift
        return (uint248(nonce >> 8), 1 << (nonce & 0xff));
    }

    /// @dev DELEGATECALL to this very contract with a gas limit, taking back only the head of what it says on failure.
    /// Solidity's own `try` copies all of it, which the caller would pay.
    function _callSelf(bytes memory data, uint256 gasLimit) private returns (bool success, bytes memory reason) {
        uint256 most = MAX_REASON_BYTES;
        assembly ("memory-safe") {
            success := delegatecall(gasLimit, address(), add(data, 0x20), mload(data), 0x00, 0x00)
            let size := returndatasize()
            if gt(size, most) { size := most }
            reason := mload(0x40)
            mstore(reason, size)
            returndatacopy(add(reason, 0x20), 0x00, size)
            // the free memory pointer stays a multiple of 32
            mstore(0x40, and(add(add(reason, size), 0x3f), not(0x1f)))
        }
    }
}
