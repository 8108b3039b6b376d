// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC1155Utils} from "@openzeppelin/contracts/token/ERC1155/utils/ERC1155Utils.sol";
import {Classes} from "./Classes.sol";
import {Intents} from "./Intents.sol";

/// @title What a world may do with what its visitors bring
/// @notice Nothing, but what each of them signed for one class: hold so many units in place for a while ({Lock}), or take
/// so many of them ({Spend}).
abstract contract Worlds is Classes, Intents {
    /// @notice The longest that a lock may last, in seconds. A world that vanishes can't release what was carried into
    /// it, so this is the longest that its end can hold an item. A week covers a visit of any length that people make
    /// in one go; who stays longer signs again.
    uint64 public constant MAX_LOCK_SECONDS = 7 days;

    /// @notice `amount` units stay in the owner's wallet, unable to move, until released.
    event Locked(address indexed owner, address indexed world, uint256 indexed id, uint256 amount, uint64 until);

    /// @notice `amount` units may move again.
    event Unlocked(address indexed owner, address indexed world, uint256 indexed id, uint256 amount);

    /// @notice The world may spend so many units before `until`, whatever it was before; 0 for none.
    event SpendAllowed(address indexed owner, address indexed world, uint256 indexed id, uint256 max, uint64 until);

    /// @notice The world took units of the owner's: to `to`, or to nowhere. The transfer's event follows.
    event Spent(address indexed owner, address indexed world, uint256 indexed id, uint256 amount, address to);

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
    /// @notice The world may spend only `left` units: none were allowed, or so few, or its time is past.
    error SpendNotAllowed(address owner, address world, uint256 id, uint256 left);

    // --------------------------------------------------------------------------------------------------------- locks

    /// @notice Lock an item for a world as its holder signed. Anyone may submit it.
    /// @param signature 65 bytes by the key of `intent.owner`, or whatever its contract accepts by ERC-1271.
    function lockWithSignature(Lock calldata intent, bytes calldata signature) external {
        (address owner, address world, uint256 id) = (intent.owner, intent.world, intent.id);
        (uint256 amount, uint64 until) = (intent.amount, intent.until);
        _useIntent(owner, intent.nonce, intent.deadline, hashLock(intent), signature);
        if (world == address(0) || amount == 0) revert EmptyLock(world, amount);
        uint256 latest = block.timestamp + MAX_LOCK_SECONDS;
        if (until <= block.timestamp || until > latest) revert LockTimeOutOfRange(until, latest);
        Account storage account = _accounts[id][owner];
        Hold storage hold = account.holds[world];
        if (hold.amount != 0) revert AlreadyLocked(owner, world, id);
        uint256 holding = account.holding;
        _checkFree(owner, id, amount, holding);
        // forge-lint: disable-next-line(unsafe-typecast) amount <= the balance, a uint128
        (hold.amount, hold.until) = (uint128(amount), until);
        // no overflow: what is locked stays within the balance, a uint128
        unchecked {
            account.holding = holding + (amount << 128);
        }
        emit Locked(owner, world, id, amount, until);
    }

    /// @notice Release what is locked for a world as the world signed. Anyone may submit it.
    /// @param signature 65 bytes by the key of `intent.world`, or whatever its contract accepts by ERC-1271.
    function unlockWithSignature(Unlock calldata intent, bytes calldata signature) external {
        (address owner, address world, uint256 id) = (intent.owner, intent.world, intent.id);
        _useIntent(world, intent.nonce, intent.deadline, hashUnlock(intent), signature);
        _unlock(owner, world, id, true);
    }

    /// @notice Release what is locked for a world: the world at any time, anyone once its time is over.
    function unlock(address owner, address world, uint256 id) external {
        _unlock(owner, world, id, msg.sender == world);
    }

    /// @notice What is locked for one world, and until when anyone else has to wait; zeros where nothing is.
    function lockOf(address owner, uint256 id, address world) external view returns (uint256 amount, uint64 until) {
        Hold storage hold = _accounts[id][owner].holds[world];
        return (hold.amount, hold.until);
    }

    function _unlock(address owner, address world, uint256 id, bool byWorld) private {
        Account storage account = _accounts[id][owner];
        Hold memory hold = account.holds[world];
        if (hold.amount == 0) revert NotLocked(owner, world, id);
        if (!byWorld && block.timestamp < hold.until) revert StillLocked(owner, world, id, hold.until);
        delete account.holds[world];
        // no borrow: what is locked is at least this hold
        unchecked {
            account.holding -= uint256(hold.amount) << 128;
        }
        emit Unlocked(owner, world, id, hold.amount);
    }

    // -------------------------------------------------------------------------------------------------------- spends

    /// @notice Let a world spend as a holder signed, in place of whatever it was allowed of that class before. Anyone may
    /// submit it.
    /// @param signature 65 bytes by the key of `intent.owner`, or whatever its contract accepts by ERC-1271.
    function allowSpendWithSignature(Spend calldata intent, bytes calldata signature) external {
        (address owner, address world, uint256 id) = (intent.owner, intent.world, intent.id);
        _useIntent(owner, intent.nonce, intent.deadline, hashSpend(intent), signature);
        // no class has more units than this; and so nobody signs what has no end
        if (intent.max > type(uint128).max) revert CapExceeded(id, type(uint128).max, intent.max);
        // forge-lint: disable-next-line(unsafe-typecast) just checked
        _allow(owner, world, id, uint128(intent.max), intent.until);
    }

    /// @notice Take back what a world may spend of the caller's.
    function revokeSpend(address world, uint256 id) external {
        _allow(msg.sender, world, id, 0, 0);
    }

    /// @notice Take units of the owner's that are not locked, within what the owner allowed the caller: to `to`, or, where
    /// that is zero, out of existence.
    function spend(address owner, uint256 id, uint256 amount, address to) external {
        Allowance storage allowance = _accounts[id][owner].allowances[msg.sender];
        uint256 left = block.timestamp < allowance.until ? allowance.left : 0;
        // an allowance of nothing doesn't let anyone spend nothing: that would put events in strangers' names
        if (left == 0 || amount > left) revert SpendNotAllowed(owner, msg.sender, id, left);
        if (amount == left) {
            delete _accounts[id][owner].allowances[msg.sender];
        } else {
            // forge-lint: disable-next-line(unsafe-typecast) left is a uint128
            allowance.left = uint128(left - amount);
        }
        emit Spent(owner, msg.sender, id, amount, to);
        if (to == address(0)) {
            _burn(owner, id, amount, false);
        } else {
            _move(owner, to, id, amount);
            ERC1155Utils.checkOnERC1155Received(msg.sender, owner, to, id, amount, "");
        }
    }

    /// @notice What a world may still spend, and until when; zeros where nothing is left. It stands after its time too.
    function spendAllowance(address owner, uint256 id, address world)
        external
        view
        returns (uint256 left, uint64 until)
    {
        Allowance storage allowance = _accounts[id][owner].allowances[world];
        return (allowance.left, allowance.until);
    }

    /// @dev A permission of nothing is stored, and told of, as no permission at all.
    function _allow(address owner, address world, uint256 id, uint128 max, uint64 until) private {
        if (max == 0) until = 0;
        Allowance storage allowance = _accounts[id][owner].allowances[world];
        (allowance.left, allowance.until) = (max, until);
        emit SpendAllowed(owner, world, id, max, until);
    }
}
