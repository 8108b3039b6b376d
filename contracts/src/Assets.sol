// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC1155Utils} from "@openzeppelin/contracts/token/ERC1155/utils/ERC1155Utils.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Intents} from "./Intents.sol";
import {Worlds} from "./Worlds.sol";

/// @title Items that belong to a wallet and travel between worlds
/// @notice An ERC-1155 ledger whose holders act by signature: they sign, anyone submits and pays the gas.
///
/// A class is what its issuer made it when it was created: its cap, its terms, and who may ever give it a new descriptor
/// never change. A cap of 1 makes its item unique; a class without a cap serves as a currency.
///
/// Nobody owns this contract: it has no administrator, no pause and no upgrade. Whoever holds an item moves it, by a
/// call of the ERC-1155 standard or by a signature; whoever issued a class mints it within its cap.
///
/// @dev Every state change precedes the only calls into foreign code that can write: the receiver hooks of ERC-1155.
/// (ERC-1271 wallets are asked by STATICCALL.) So a hook that re-enters finds the ledger settled.
///
/// {Holdings}: who has what. {Classes}: what there is. {Intents}: what can be signed. {Worlds}: locks and spends. Here:
/// movement by signature, alone, in swaps and in batches.
contract Assets is Worlds {
    /// @notice The most items of a batch transfer, or of one side of a swap: a signature that nobody can read through, or
    /// whose gas no block has, is no use.
    uint256 public constant MAX_ITEMS = 32;

    /// @notice The least gas that a batch must grant each intent, so that no relayer can make one fail by granting too
    /// little: more than any intent about one class takes between plain accounts where every storage slot is cold and
    /// new. A transfer takes 66,000 then, and the dearest, a lock by a second world, 93,000, both with their calldata
    /// (test/Gas.t.sol).
    uint256 public constant MIN_GAS_PER_INTENT = 100_000;

    /// @dev Gas between the check of what is left and the call that it protects, generously: the call's own price
    /// (100, this address being warm) and some stack operations.
    uint256 private constant CALL_OVERHEAD_GAS = 1_000;

    /// @dev Bytes of an intent's revert data that {IntentFailed} carries. The longest error here or in OpenZeppelin's
    /// has 132 (a selector and four words); a receiver may return a megabyte, and the relayer would pay.
    uint256 private constant MAX_REASON_BYTES = 256;

    /// @notice An intent of a batch changed nothing, and its nonce is as it was. Not a final verdict: anyone may submit
    /// any bytes in anyone's name, so only {isNonceUsed} and the deadline say whether an intent is over.
    /// @param reason the first 256 bytes of its revert data; empty where it ran out of gas.
    event IntentFailed(address indexed from, uint256 indexed nonce, bytes reason);

    /// @notice A call of a batch of calls changed nothing. No final verdict either.
    /// @param index its position in the batch.
    /// @param reason as in {IntentFailed}.
    event CallFailed(uint256 indexed index, bytes reason);

    /// @notice Two holders exchanged items. What they gave follows.
    event Swapped(address indexed first, address indexed second, uint256 firstNonce, uint256 secondNonce);

    /// @notice Each intent of a batch needs its signature.
    error LengthMismatch(uint256 intents, uint256 signatures);
    /// @notice A batch must grant each intent at least `least` gas.
    error GasPerIntentTooLow(uint256 gasPerIntent, uint256 least);
    /// @notice The transaction has too little gas left to grant an intent what the batch promises.
    error NotEnoughGas(uint256 left, uint256 needed);
    /// @notice A batch of calls holds calls of the functions ending in WithSignature(s), and no others.
    error NotRelayable(bytes4 selector);
    /// @notice A swap in which nobody gives anything, or somebody swaps with themselves.
    error EmptySwap();
    /// @notice A batch transfer or a side of a swap has more than `most` items.
    error TooManyItems(uint256 items, uint256 most);

    /// @dev The EIP-712 domain is (p2pos, 1, this chain, this contract).
    constructor() EIP712("p2pos", "1") {}

    // -------------------------------------------------------------------------------------------------------- alone

    /// @notice Carry out a transfer that its holder signed. Anyone may.
    /// @param signature 65 bytes by the key of `intent.from`, or whatever its contract accepts by ERC-1271.
    /// @dev {relay} calls it too, by DELEGATECALL, so that the operator named in events and hooks is the relayer.
    function transferWithSignature(Transfer calldata intent, bytes calldata signature) external {
        (address from, address to, uint256 id, uint256 amount) = (intent.from, intent.to, intent.id, intent.amount);
        _useIntent(from, intent.nonce, intent.deadline, _hashTransfer(intent), signature);
        _move(from, to, id, amount);
        _ask(from, to, id, amount);
    }

    /// @notice Carry out a transfer of several classes that their holder signed: all or nothing. Anyone may.
    /// @param signature as for {transferWithSignature}.
    function batchTransferWithSignature(BatchTransfer calldata intent, bytes calldata signature) external {
        (uint256[] calldata ids, uint256[] calldata amounts) = (intent.ids, intent.amounts);
        _checkCount(ids.length);
        _checkLengths(ids, amounts);
        _useIntent(intent.from, intent.nonce, intent.deadline, hashBatchTransfer(intent), signature);
        _moveMany(intent.from, intent.to, ids, amounts, "");
    }

    // -------------------------------------------------------------------------------------------------------- swaps

    /// @notice Exchange items between two holders who both signed: all or nothing. Anyone may.
    /// @param firstSignature by `intent.first`, as for {transferWithSignature}.
    /// @param secondSignature by `intent.second`, likewise.
    /// @dev The first gives before the second does; the receivers that are contracts are asked after both did.
    function swapWithSignatures(Swap calldata intent, bytes calldata firstSignature, bytes calldata secondSignature)
        external
    {
        (address first, address second) = (intent.first, intent.second);
        (Item[] calldata firstGives, Item[] calldata secondGives) = (intent.firstGives, intent.secondGives);
        if (first == second || firstGives.length + secondGives.length == 0) revert EmptySwap();
        _checkCount(firstGives.length);
        _checkCount(secondGives.length);
        bytes32 hash = hashSwap(intent);
        _useIntent(first, intent.firstNonce, intent.deadline, hash, firstSignature);
        _useIntent(second, intent.secondNonce, intent.deadline, hash, secondSignature);
        emit Swapped(first, second, intent.firstNonce, intent.secondNonce);
        _hand(first, second, firstGives);
        _hand(second, first, secondGives);
        _askSide(first, second, firstGives);
        _askSide(second, first, secondGives);
    }

    /// @dev Move one side's items and say so.
    function _hand(address from, address to, Item[] calldata items) private {
        if (items.length == 0) return;
        if (items.length == 1) {
            _move(from, to, items[0].id, items[0].amount);
            return;
        }
        for (uint256 i = 0; i < items.length; ++i) {
            _shift(from, to, items[i].id, items[i].amount);
        }
        (uint256[] memory ids, uint256[] memory amounts) = _columns(items);
        emit TransferBatch(msg.sender, from, to, ids, amounts);
    }

    /// @dev Ask a receiver that is a contract whether it takes one side's items.
    function _askSide(address from, address to, Item[] calldata items) private {
        if (items.length == 0 || to.code.length == 0) return;
        if (items.length == 1) {
            _ask(from, to, items[0].id, items[0].amount);
            return;
        }
        (uint256[] memory ids, uint256[] memory amounts) = _columns(items);
        ERC1155Utils.checkOnERC1155BatchReceived(msg.sender, from, to, ids, amounts, "");
    }

    function _columns(Item[] calldata items) private pure returns (uint256[] memory ids, uint256[] memory amounts) {
        (ids, amounts) = (new uint256[](items.length), new uint256[](items.length));
        for (uint256 i = 0; i < items.length; ++i) {
            (ids[i], amounts[i]) = (items[i].id, items[i].amount);
        }
    }

    function _checkCount(uint256 items) private pure {
        if (items > MAX_ITEMS) revert TooManyItems(items, MAX_ITEMS);
    }

    // ------------------------------------------------------------------------------------------------------- batches

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
        uint256 needed = _needed(gasPerIntent);
        for (uint256 i = 0; i < intents.length; ++i) {
            Transfer calldata intent = intents[i];
            (uint256 data, uint256 size) = _transferCall(intent, signatures[i]);
            if (_callSelf(data, size, gasPerIntent, needed)) ++succeeded;
            else emit IntentFailed(intent.from, intent.nonce, _reason());
        }
    }

    /// @notice Carry out many signed intents of any kind, skipping and reporting those that fail. Anyone may.
    /// @param calls each the calldata of one of the six functions ending in WithSignature(s), carried out in this order.
    /// @param gasPerCall the most gas that one call may take; at least {MIN_GAS_PER_INTENT}. That covers what plain
    /// accounts sign about one class; batch transfers and swaps may take more (docs/contract.md).
    /// @return succeeded how many took effect.
    /// @dev As {relay} it reverts as a whole rather than grant less than promised.
    function relayCalls(bytes[] calldata calls, uint256 gasPerCall) external returns (uint256 succeeded) {
        uint256 needed = _needed(gasPerCall);
        for (uint256 i = 0; i < calls.length; ++i) {
            bytes calldata call = calls[i];
            bytes4 selector = bytes4(call);
            if (!_isRelayable(selector)) {
                emit CallFailed(i, abi.encodeWithSelector(NotRelayable.selector, selector));
                continue;
            }
            (uint256 data, uint256 size) = _copied(call);
            if (_callSelf(data, size, gasPerCall, needed)) ++succeeded;
            else emit CallFailed(i, _reason());
        }
    }

    function _isRelayable(bytes4 selector) private pure returns (bool) {
        return selector == this.transferWithSignature.selector || selector == this.batchTransferWithSignature.selector
            || selector == this.lockWithSignature.selector || selector == this.unlockWithSignature.selector
            || selector == this.allowSpendWithSignature.selector || selector == this.swapWithSignatures.selector;
    }

    /// @dev What must be left before a call that is granted `gasPerCall`: by EIP-150 a call gets at most 63/64 of it.
    function _needed(uint256 gasPerCall) private pure returns (uint256) {
        if (gasPerCall < MIN_GAS_PER_INTENT) revert GasPerIntentTooLow(gasPerCall, MIN_GAS_PER_INTENT);
        return Math.saturatingAdd(gasPerCall, gasPerCall / 63 + CALL_OVERHEAD_GAS);
    }

    /// @dev The call that carries out one transfer, written to free memory, which stays free: the next one overwrites it,
    /// so that memory doesn't grow with the batch.
    /// @return data where it begins.
    /// @return size how many bytes it has.
    function _transferCall(Transfer calldata intent, bytes calldata signature)
        private
        pure
        returns (uint256 data, uint256 size)
    {
        bytes4 selector = this.transferWithSignature.selector;
        assembly ("memory-safe") {
            data := mload(0x40)
            mstore(data, selector)
            // the struct's six words stand in the arguments as they do in the array
            calldatacopy(add(data, 0x04), intent, 0xc0)
            // where the signature begins, counted from the first argument: after the struct and this word
            mstore(add(data, 0xc4), 0xe0)
            mstore(add(data, 0xe4), signature.length)
            calldatacopy(add(data, 0x104), signature.offset, signature.length)
            size := add(0x104, signature.length)
        }
    }

    /// @dev A call out of calldata, written to free memory, which stays free.
    function _copied(bytes calldata call) private pure returns (uint256 data, uint256 size) {
        assembly ("memory-safe") {
            data := mload(0x40)
            size := call.length
            calldatacopy(data, call.offset, size)
        }
    }

    /// @dev DELEGATECALL to this very contract with a gas limit, so that what fails takes nothing else with it.
    function _callSelf(uint256 data, uint256 size, uint256 gasLimit, uint256 needed) private returns (bool success) {
        if (gasleft() < needed) revert NotEnoughGas(gasleft(), needed);
        assembly ("memory-safe") {
            success := delegatecall(gasLimit, address(), data, size, 0x00, 0x00)
        }
    }

    /// @dev The head of what the last call said. Solidity's own `try` copies all of it, which the caller would pay.
    function _reason() private pure returns (bytes memory reason) {
        uint256 most = MAX_REASON_BYTES;
        assembly ("memory-safe") {
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
