// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

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

    /// @dev Where in {Account}'s `lockers` the one lock's end stands, and how the count of several is raised.
    uint256 private constant UNTIL_AT = 160;
    uint256 private constant ONE_LOCKER = 1 << 224;

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
        _lock(_accounts[id][owner], owner, world, id, amount, until);
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
        (amount, until,) = _lockOf(_accounts[id][owner], world);
    }

    function _lock(Account storage account, address owner, address world, uint256 id, uint256 amount, uint64 until)
        private
    {
        (uint256 before,, uint256 lockers) = _lockOf(account, world);
        if (before != 0) revert AlreadyLocked(owner, world, id);
        uint256 holding = _checkFree(account, owner, id, amount);
        if (lockers == 0) {
            // the only lock; what the holding says of locked units stands there from one that was released
            holding = _balanceOf(holding);
            account.lockers = uint160(world) | uint256(until) << UNTIL_AT;
        } else {
            address other = address(uint160(lockers));
            if (other != address(0)) {
                // it was the only one so far
                // forge-lint: disable-next-line(unsafe-typecast) the halves of a holding, and the middle of three fields
                account.holds[other] = Hold(uint128(_boundOf(holding)), uint64(lockers >> UNTIL_AT));
                lockers = ONE_LOCKER;
            }
            // forge-lint: disable-next-line(unsafe-typecast) amount <= the balance, a uint128
            account.holds[world] = Hold(uint128(amount), until);
            account.lockers = lockers + ONE_LOCKER;
        }
        // no overflow: what is locked stays within the balance, a uint128
        unchecked {
            account.holding = holding + (amount << 128);
        }
    }

    function _unlock(address owner, address world, uint256 id, bool byWorld) private {
        Account storage account = _accounts[id][owner];
        (uint256 amount, uint64 until, uint256 lockers) = _lockOf(account, world);
        if (amount == 0) revert NotLocked(owner, world, id);
        if (!byWorld && block.timestamp < until) revert StillLocked(owner, world, id, until);
        if (lockers < ONE_LOCKER) {
            account.lockers = 0;
        } else {
            delete account.holds[world];
            // no borrow: it is one of those counted, and what is locked is at least its amount
            unchecked {
                account.lockers = lockers - ONE_LOCKER;
                account.holding -= amount << 128;
            }
        }
        emit Unlocked(owner, world, id, amount);
    }

    /// @dev What is locked for one world, and who locks.
    function _lockOf(Account storage account, address world)
        private
        view
        returns (uint256 amount, uint64 until, uint256 lockers)
    {
        lockers = account.lockers;
        if (lockers >= ONE_LOCKER) {
            Hold storage hold = account.holds[world];
            (amount, until) = (hold.amount, hold.until);
        } else if (lockers != 0 && address(uint160(lockers)) == world) {
            // forge-lint: disable-next-line(unsafe-typecast) the middle of three fields
            (amount, until) = (_boundOf(account.holding), uint64(lockers >> UNTIL_AT));
        }
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
            _ask(owner, to, id, amount);
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
