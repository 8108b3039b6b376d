// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {ERC1155Utils} from "@openzeppelin/contracts/token/ERC1155/utils/ERC1155Utils.sol";
import {ERC165} from "@openzeppelin/contracts/utils/introspection/ERC165.sol";

/// @title Who holds how much, and how much of it can't move
/// @notice An ERC-1155 ledger in which the locked part of a holding shares the balance's storage slot, so that a transfer
/// knows by one read what is free.
///
/// @dev OpenZeppelin's ERC1155 would cost a transfer a second cold slot for the lock and four arrays of length one. Its
/// errors, its checks of receivers and its order of refusals are kept: approval, then receiver, then balance.
///
/// No balance overflows: {Classes} makes at most 2**128 - 1 units of a class in all, ever.
abstract contract Holdings is ERC165, IERC1155, IERC1155Errors {
    /// @dev What one account has of one class.
    struct Account {
        /// @dev the balance in the low 128 bits; in the high ones the most of it that may be locked, never more than the
        /// balance. That is what is locked, all of a soulbound class included, unless the last lock was released since:
        /// a release leaves it standing, which spares it a slot, and the next movement that needs more clears it
        uint256 holding;
        /// @dev zero where no world locks anything; or else
        /// the one world that does, and from bit 160 on until when: it locks what `holding` says;
        /// or else from bit 224 on how many worlds do: each has its entry in `holds`, and `holding` has their sum
        uint256 lockers;
        /// @dev what is locked for whom, where several worlds lock
        mapping(address world => Hold) holds;
        /// @dev what who may spend
        mapping(address world => Allowance) allowances;
    }

    /// @dev One of several locks in force, in one storage slot.
    struct Hold {
        uint128 amount;
        uint64 until;
    }

    /// @dev A permission to spend, in one storage slot.
    struct Allowance {
        uint128 left;
        uint64 until;
    }

    mapping(uint256 id => mapping(address owner => Account)) internal _accounts;

    mapping(address owner => mapping(address operator => bool)) private _approvals;

    /// @notice Only `free` units of the owner's are not locked.
    error ItemLocked(address owner, uint256 id, uint256 free);
    /// @notice Units of this class never change hands; their holder may burn them.
    error Soulbound(uint256 id);

    // ------------------------------------------------------------------------------------------------------ standard

    /// @inheritdoc IERC1155
    function balanceOf(address owner, uint256 id) external view returns (uint256) {
        return _balanceOf(_accounts[id][owner].holding);
    }

    /// @inheritdoc IERC1155
    function balanceOfBatch(address[] calldata owners, uint256[] calldata ids)
        external
        view
        returns (uint256[] memory balances)
    {
        if (owners.length != ids.length) revert ERC1155InvalidArrayLength(ids.length, owners.length);
        balances = new uint256[](ids.length);
        for (uint256 i = 0; i < ids.length; ++i) {
            balances[i] = _balanceOf(_accounts[ids[i]][owners[i]].holding);
        }
    }

    /// @inheritdoc IERC1155
    function setApprovalForAll(address operator, bool approved) external {
        if (operator == address(0)) revert ERC1155InvalidOperator(address(0));
        _approvals[msg.sender][operator] = approved;
        emit ApprovalForAll(msg.sender, operator, approved);
    }

    /// @inheritdoc IERC1155
    function isApprovedForAll(address owner, address operator) public view returns (bool) {
        return _approvals[owner][operator];
    }

    /// @inheritdoc IERC1155
    function safeTransferFrom(address from, address to, uint256 id, uint256 value, bytes calldata data) external {
        _checkApproved(from);
        _move(from, to, id, value);
        ERC1155Utils.checkOnERC1155Received(msg.sender, from, to, id, value, data);
    }

    /// @inheritdoc IERC1155
    function safeBatchTransferFrom(
        address from,
        address to,
        uint256[] calldata ids,
        uint256[] calldata values,
        bytes calldata data
    ) external {
        _checkApproved(from);
        _checkLengths(ids, values);
        _moveMany(from, to, ids, values, data);
    }

    /// @notice How many of the owner's units can't move: those locked for worlds, and all of a soulbound class.
    function lockedOf(address owner, uint256 id) external view returns (uint256) {
        Account storage account = _accounts[id][owner];
        uint256 locked = _boundOf(account.holding);
        return account.lockers != 0 || _isSoulbound(id) ? locked : 0;
    }

    // ------------------------------------------------------------------------------------------------------ movement

    /// @dev Move free units and say so. {_ask} comes after it. To oneself too, only
    /// what is free moves.
    function _move(address from, address to, uint256 id, uint256 amount) internal {
        _checkReceiver(to);
        _shift(from, to, id, amount);
        emit TransferSingle(msg.sender, from, to, id, amount);
    }

    /// @dev Ask a receiver that is a contract whether it takes what it just got.
    function _ask(address from, address to, uint256 id, uint256 amount) internal {
        if (to.code.length != 0) ERC1155Utils.checkOnERC1155Received(msg.sender, from, to, id, amount, "");
    }

    /// @dev {_move} for several classes, one after another, so that a class named twice can't give more than is free;
    /// then ask the receiver.
    function _moveMany(address from, address to, uint256[] calldata ids, uint256[] calldata amounts, bytes memory data)
        internal
    {
        _checkReceiver(to);
        for (uint256 i = 0; i < ids.length; ++i) {
            _shift(from, to, ids[i], amounts[i]);
        }
        emit TransferBatch(msg.sender, from, to, ids, amounts);
        if (to.code.length != 0) {
            ERC1155Utils.checkOnERC1155BatchReceived(msg.sender, from, to, ids, amounts, data);
        }
    }

    /// @dev Take free units from one account and give them to another, in silence.
    function _shift(address from, address to, uint256 id, uint256 amount) internal {
        mapping(address owner => Account) storage accounts = _accounts[id];
        _take(accounts[from], from, id, amount);
        // no carry: all balances of a class together stay below 2**128
        unchecked {
            accounts[to].holding += amount;
        }
    }

    /// @dev Take free units from an account.
    function _take(Account storage account, address owner, uint256 id, uint256 amount) private {
        uint256 holding = _checkFree(account, owner, id, amount);
        // no borrow: amount <= the balance, the low half
        unchecked {
            account.holding = holding - amount;
        }
    }

    /// @dev New units. Those of a soulbound class are locked from the first.
    function _make(address to, uint256 id, uint256 amount, bool soulbound) internal {
        _checkReceiver(to);
        // no carry, as above
        unchecked {
            _accounts[id][to].holding += soulbound ? amount | amount << 128 : amount;
        }
        emit TransferSingle(msg.sender, address(0), to, id, amount);
    }

    /// @dev End free units, or, of a soulbound class, any.
    function _end(address from, uint256 id, uint256 amount, bool soulbound) internal {
        Account storage account = _accounts[id][from];
        if (soulbound) {
            uint256 holding = account.holding;
            _checkBalance(from, id, amount, _balanceOf(holding));
            // no borrow: of a soulbound class, both halves are the balance
            unchecked {
                account.holding = holding - (amount | amount << 128);
            }
        } else {
            _take(account, from, id, amount);
        }
        emit TransferSingle(msg.sender, from, address(0), id, amount);
    }

    // -------------------------------------------------------------------------------------------------------- checks

    function _checkApproved(address from) private view {
        if (from != msg.sender && !isApprovedForAll(from, msg.sender)) {
            revert ERC1155MissingApprovalForAll(msg.sender, from);
        }
    }

    function _checkReceiver(address to) internal pure {
        if (to == address(0)) revert ERC1155InvalidReceiver(address(0));
    }

    function _checkLengths(uint256[] calldata ids, uint256[] calldata values) internal pure {
        if (ids.length != values.length) revert ERC1155InvalidArrayLength(ids.length, values.length);
    }

    /// @dev Refuse unless `amount` units of an account may move.
    /// @return holding what the account holds, as if it held nothing locked where its last lock was released and more is
    /// needed than was free before.
    function _checkFree(Account storage account, address owner, uint256 id, uint256 amount)
        internal
        view
        returns (uint256 holding)
    {
        holding = account.holding;
        uint256 balance = _balanceOf(holding);
        _checkBalance(owner, id, amount, balance);
        // no borrow: what is locked is never more than the balance
        unchecked {
            uint256 free = balance - _boundOf(holding);
            if (amount > free) {
                if (_isSoulbound(id)) revert Soulbound(id);
                if (account.lockers != 0) revert ItemLocked(owner, id, free);
                return balance;
            }
        }
    }

    function _checkBalance(address owner, uint256 id, uint256 amount, uint256 balance) private pure {
        if (amount > balance) revert ERC1155InsufficientBalance(owner, balance, amount, id);
    }

    function _isSoulbound(uint256 id) internal view virtual returns (bool);

    function _balanceOf(uint256 holding) internal pure returns (uint256) {
        return holding & type(uint128).max;
    }

    /// @dev The most of a holding that may be locked.
    function _boundOf(uint256 holding) internal pure returns (uint256) {
        return holding >> 128;
    }
}
