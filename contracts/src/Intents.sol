// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title What can be signed, and that it counts once
/// @notice Six kinds of intents as EIP-712 typed data, and the nonces that make each good for one time.
abstract contract Intents is EIP712 {
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

    /// @notice What a holder signs to move items of several classes at once.
    struct BatchTransfer {
        /// @notice whose items they are, and who signs
        address from;
        /// @notice who gets them; never the zero address
        address to;
        /// @notice the classes, at most {MAX_ITEMS}
        uint256[] ids;
        /// @notice of each, how many units
        uint256[] amounts;
        /// @notice as a transfer's
        uint256 nonce;
        /// @notice as a transfer's
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
        /// @notice as a transfer's
        uint256 nonce;
        /// @notice as a transfer's
        uint256 deadline;
    }

    /// @notice What a world signs to release an item early.
    struct Unlock {
        /// @notice whose item it is
        address owner;
        /// @notice the world, which signs
        address world;
        /// @notice the class
        uint256 id;
        /// @notice any number that the world has not used
        uint256 nonce;
        /// @notice as a transfer's
        uint256 deadline;
    }

    /// @notice What a holder signs to let a world take units of one class, up to a number and up to a moment.
    struct Spend {
        /// @notice whose units they are, and who signs
        address owner;
        /// @notice the account of the world, which may spend them
        address world;
        /// @notice the class
        uint256 id;
        /// @notice how many units in all, at most 2**128 - 1; 0 takes the permission back
        uint256 max;
        /// @notice when it ends, in seconds of Unix time
        uint64 until;
        /// @notice as a transfer's
        uint256 nonce;
        /// @notice as a transfer's
        uint256 deadline;
    }

    /// @notice Some units of a class.
    struct Item {
        /// @notice the class
        uint256 id;
        /// @notice how many units
        uint256 amount;
    }

    /// @notice What two holders sign to exchange items: all of it happens, or nothing.
    struct Swap {
        /// @notice one of the two, who signs
        address first;
        /// @notice the other, who signs too
        address second;
        /// @notice what the first gives to the second, at most {MAX_ITEMS}
        Item[] firstGives;
        /// @notice what the second gives to the first, at most {MAX_ITEMS}
        Item[] secondGives;
        /// @notice any number that `first` has not used
        uint256 firstNonce;
        /// @notice any number that `second` has not used
        uint256 secondNonce;
        /// @notice as a transfer's
        uint256 deadline;
    }

    // ----------------------------------------------------------------------------------------------------- constants

    /// @notice EIP-712 type hash of {Transfer}.
    bytes32 public constant TRANSFER_TYPEHASH =
        keccak256("Transfer(address from,address to,uint256 id,uint256 amount,uint256 nonce,uint256 deadline)");

    /// @notice EIP-712 type hash of {BatchTransfer}.
    bytes32 public constant BATCH_TRANSFER_TYPEHASH = keccak256(
        "BatchTransfer(address from,address to,uint256[] ids,uint256[] amounts,uint256 nonce,uint256 deadline)"
    );

    /// @notice EIP-712 type hash of {Lock}.
    bytes32 public constant LOCK_TYPEHASH = keccak256(
        "Lock(address owner,address world,uint256 id,uint256 amount,uint64 until,uint256 nonce,uint256 deadline)"
    );

    /// @notice EIP-712 type hash of {Unlock}.
    bytes32 public constant UNLOCK_TYPEHASH =
        keccak256("Unlock(address owner,address world,uint256 id,uint256 nonce,uint256 deadline)");

    /// @notice EIP-712 type hash of {Spend}.
    bytes32 public constant SPEND_TYPEHASH = keccak256(
        "Spend(address owner,address world,uint256 id,uint256 max,uint64 until,uint256 nonce,uint256 deadline)"
    );

    /// @notice EIP-712 type hash of {Item}.
    bytes32 public constant ITEM_TYPEHASH = keccak256("Item(uint256 id,uint256 amount)");

    /// @notice EIP-712 type hash of {Swap}.
    bytes32 public constant SWAP_TYPEHASH = keccak256(
        "Swap(address first,address second,Item[] firstGives,Item[] secondGives,uint256 firstNonce,uint256 secondNonce,uint256 deadline)Item(uint256 id,uint256 amount)"
    );

    // --------------------------------------------------------------------------------------------------------- state

    /// @dev Bit `nonce & 255` of word `nonce >> 8` is set once the nonce is used or cancelled.
    mapping(address owner => mapping(uint248 word => uint256 bits)) private _nonces;

    /// @notice A signed intent with this nonce took effect.
    event NonceUsed(address indexed owner, uint256 indexed nonce);

    /// @notice The owner made this nonce worthless: what was signed with it will never take effect.
    event NonceCancelled(address indexed owner, uint256 indexed nonce);

    /// @notice The intent was good until `deadline`.
    error IntentExpired(uint256 deadline);
    /// @notice The nonce was used or cancelled.
    error NonceAlreadyUsed(address owner, uint256 nonce);
    /// @notice The signature is not by `signer` over this intent for this contract on this chain.
    error BadSignature(address signer);

    // -------------------------------------------------------------------------------------------------------- nonces

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

    /// @dev An intent is good once, in time, and only by its signer's will.
    function _useIntent(address signer, uint256 nonce, uint256 deadline, bytes32 hash, bytes calldata signature)
        internal
    {
        if (block.timestamp > deadline) revert IntentExpired(deadline);
        _useNonce(signer, nonce);
        if (!_isSignedBy(signer, hash, signature)) revert BadSignature(signer);
        emit NonceUsed(signer, nonce);
    }

    /// @dev By the account's key, or else, where it is a contract, by whatever that accepts. The key comes first: an
    /// account that delegates by EIP-7702 has both, and most signers have no code whose look-up would be worth its gas.
    function _isSignedBy(address signer, bytes32 hash, bytes calldata signature) private view returns (bool) {
        // slither-disable-next-line unused-return the third value only adds to the second
        (address recovered, ECDSA.RecoverError problem,) = ECDSA.tryRecoverCalldata(hash, signature);
        if (problem == ECDSA.RecoverError.NoError && recovered == signer) return true;
        return signer.code.length != 0 && SignatureChecker.isValidERC1271SignatureNowCalldata(signer, hash, signature);
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

    // -------------------------------------------------------------------------------------------------------- hashes

    /// @notice The 32 bytes that `intent.from` signs.
    function hashTransfer(Transfer calldata intent) external view returns (bytes32) {
        (intent.from, intent.to);
        return _hashTransfer(intent);
    }

    /// @dev For callers that read `from` and `to` themselves; see {_hashWords}.
    function _hashTransfer(Transfer calldata intent) internal view returns (bytes32) {
        uint256 words;
        assembly ("memory-safe") {
            words := intent
        }
        return _hashWords(TRANSFER_TYPEHASH, words, 6);
    }

    /// @notice The 32 bytes that `intent.from` signs.
    function hashBatchTransfer(BatchTransfer calldata intent) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    BATCH_TRANSFER_TYPEHASH,
                    intent.from,
                    intent.to,
                    keccak256(abi.encodePacked(intent.ids)),
                    keccak256(abi.encodePacked(intent.amounts)),
                    intent.nonce,
                    intent.deadline
                )
            )
        );
    }

    /// @notice The 32 bytes that `intent.owner` signs.
    function hashLock(Lock calldata intent) public view returns (bytes32) {
        (intent.owner, intent.world, intent.until);
        uint256 words;
        assembly ("memory-safe") {
            words := intent
        }
        return _hashWords(LOCK_TYPEHASH, words, 7);
    }

    /// @notice The 32 bytes that `intent.world` signs.
    function hashUnlock(Unlock calldata intent) public view returns (bytes32) {
        (intent.owner, intent.world);
        uint256 words;
        assembly ("memory-safe") {
            words := intent
        }
        return _hashWords(UNLOCK_TYPEHASH, words, 5);
    }

    /// @notice The 32 bytes that `intent.owner` signs.
    function hashSpend(Spend calldata intent) public view returns (bytes32) {
        (intent.owner, intent.world, intent.until);
        uint256 words;
        assembly ("memory-safe") {
            words := intent
        }
        return _hashWords(SPEND_TYPEHASH, words, 7);
    }

    /// @notice The 32 bytes that `intent.first` and `intent.second` sign.
    function hashSwap(Swap calldata intent) public view returns (bytes32) {
        return _hashTypedDataV4(
            keccak256(
                abi.encode(
                    SWAP_TYPEHASH,
                    intent.first,
                    intent.second,
                    _hashItems(intent.firstGives),
                    _hashItems(intent.secondGives),
                    intent.firstNonce,
                    intent.secondNonce,
                    intent.deadline
                )
            )
        );
    }

    function _hashItems(Item[] calldata items) private pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](items.length);
        for (uint256 i = 0; i < items.length; ++i) {
            hashes[i] = keccak256(abi.encode(ITEM_TYPEHASH, items[i].id, items[i].amount));
        }
        return keccak256(abi.encodePacked(hashes));
    }

    /// @dev The hash of an intent all of whose fields are single words: they stand in calldata as EIP-712 wants them
    /// encoded. Its caller reads the fields narrower than a word first, because that refuses any with more bits.
    function _hashWords(bytes32 typeHash, uint256 offset, uint256 count) private view returns (bytes32) {
        bytes32 hash;
        assembly ("memory-safe") {
            let start := mload(0x40)
            mstore(start, typeHash)
            calldatacopy(add(start, 0x20), offset, mul(count, 0x20))
            hash := keccak256(start, add(mul(count, 0x20), 0x20))
        }
        return _hashTypedDataV4(hash);
    }
}
