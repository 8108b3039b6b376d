// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {Assets} from "../src/Assets.sol";
import {Holdings} from "../src/Holdings.sol";
import {Intents} from "../src/Intents.sol";
import {Worlds} from "../src/Worlds.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {JointWallet, Reentering} from "./support/Wallets.sol";

contract LocksTest is AssetsTest {
    /// @dev Lock `amount` of alice's for the world, for a day.
    function locked(uint256 id, uint256 amount, uint256 nonce) private returns (Intents.Lock memory intent) {
        intent = lockOf(alice, id, amount, nonce);
        assets.lockWithSignature(intent, signed(ALICE_KEY, intent));
    }

    function refusedLock(Intents.Lock memory intent, bytes memory reason) private {
        bytes memory signature = signed(ALICE_KEY, intent);
        vm.expectRevert(reason);
        assets.lockWithSignature(intent, signature);
        yes(!assets.isNonceUsed(alice, intent.nonce));
    }

    /// A lock says what is locked, for whom and until when.
    function testFuzz_lock(uint128 held, uint128 amount, uint256 seconds_) public {
        vm.assume(held != 0);
        amount = amount % held + 1;
        uint256 id = given(alice, held, 0);
        Intents.Lock memory intent = lockOf(alice, id, amount, 1);
        intent.until = uint64(NOW + 1 + seconds_ % assets.MAX_LOCK_SECONDS());
        bytes memory signature = signed(ALICE_KEY, intent);
        vm.expectEmit(true, true, true, true);
        emit Worlds.Locked(alice, world, id, amount, intent.until);
        assets.lockWithSignature(intent, signature);
        eq(assets.lockedOf(alice, id), amount);
        eq(assets.balanceOf(alice, id), held);
        (uint256 itsAmount, uint64 until) = assets.lockOf(alice, id, world);
        yes(itsAmount == amount && until == intent.until);
        vm.expectRevert(abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, 1));
        assets.lockWithSignature(intent, signature);
    }

    /// The digest of a lock is EIP-712's, spelled out by hand.
    function test_digest() public view {
        Intents.Lock memory intent = lockOf(alice, 1, 2, 3);
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("p2pos"),
                keccak256("1"),
                block.chainid,
                address(assets)
            )
        );
        string memory shape =
            "Lock(address owner,address world,uint256 id,uint256 amount,uint64 until,uint256 nonce,uint256 deadline)";
        bytes32 body = keccak256(abi.encode(keccak256(bytes(shape)), intent));
        yes(assets.hashLock(intent) == keccak256(abi.encodePacked(hex"1901", domain, body)));
    }

    /// What is locked moves by no way there is: signature, the owner's call, an operator's, or a batch.
    function test_locked_never_moves() public {
        uint256 id = given(alice, 10, 0);
        locked(id, 7, 1);
        bytes memory reason = abi.encodeWithSelector(Holdings.ItemLocked.selector, alice, id, 3);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 4, 2);
        refused(intent, signed(ALICE_KEY, intent), reason);
        vm.expectRevert(reason);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 4, "");
        vm.prank(alice);
        assets.setApprovalForAll(bob, true);
        vm.expectRevert(reason);
        vm.prank(bob);
        assets.safeTransferFrom(alice, bob, id, 4, "");
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 3, "");
        eq(assets.balanceOf(alice, id), 7);
    }

    /// A batch that names a class twice can't take more than is free.
    function test_batch_with_a_class_twice() public {
        uint256 id = given(alice, 10, 0);
        locked(id, 7, 1);
        (uint256[] memory ids, uint256[] memory amounts) = (new uint256[](2), new uint256[](2));
        (ids[0], ids[1], amounts[0], amounts[1]) = (id, id, 2, 2);
        vm.expectRevert(abi.encodeWithSelector(Holdings.ItemLocked.selector, alice, id, 1));
        vm.prank(alice);
        assets.safeBatchTransferFrom(alice, bob, ids, amounts, "");
    }

    /// More than the balance is refused as that, locked or not.
    function test_above_the_balance() public {
        uint256 id = given(alice, 10, 0);
        locked(id, 7, 1);
        bytes memory reason =
            abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 10, 11, id);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 11, 2);
        refused(intent, signed(ALICE_KEY, intent), reason);
        Intents.Lock memory other = lockOf(alice, id, 11, 3);
        other.world = bob;
        refusedLock(other, reason);
    }

    /// The same units can't be locked for two worlds, nor twice for one.
    function test_locked_once() public {
        uint256 id = given(alice, 10, 0);
        locked(id, 7, 1);
        refusedLock(lockOf(alice, id, 1, 2), abi.encodeWithSelector(Worlds.AlreadyLocked.selector, alice, world, id));
        Intents.Lock memory other = lockOf(alice, id, 4, 2);
        other.world = bob;
        refusedLock(other, abi.encodeWithSelector(Holdings.ItemLocked.selector, alice, id, 3));
        other.amount = 3;
        assets.lockWithSignature(other, signed(ALICE_KEY, other));
        eq(assets.lockedOf(alice, id), 10);
    }

    /// A lock ends after now and within a week, holds something, and has a world.
    function test_senseless_locks() public {
        uint256 id = given(alice, 10, 0);
        uint256 latest = NOW + assets.MAX_LOCK_SECONDS();
        Intents.Lock memory intent = lockOf(alice, id, 1, 1);
        intent.until = uint64(NOW);
        refusedLock(intent, abi.encodeWithSelector(Worlds.LockTimeOutOfRange.selector, intent.until, latest));
        intent.until = uint64(latest + 1);
        refusedLock(intent, abi.encodeWithSelector(Worlds.LockTimeOutOfRange.selector, intent.until, latest));
        intent.until = type(uint64).max;
        refusedLock(intent, abi.encodeWithSelector(Worlds.LockTimeOutOfRange.selector, intent.until, latest));
        intent.until = uint64(latest);
        intent.amount = 0;
        refusedLock(intent, abi.encodeWithSelector(Worlds.EmptyLock.selector, world, 0));
        (intent.amount, intent.world) = (1, address(0));
        refusedLock(intent, abi.encodeWithSelector(Worlds.EmptyLock.selector, address(0), 1));
    }

    /// A lock is its owner's will alone, unaltered and in time; a transfer's signature is none.
    function testFuzz_lock_needs_its_signature(uint8 field, uint256 change) public {
        uint256 id = given(alice, 10, 0);
        Intents.Lock memory intent = lockOf(alice, id, 5, 1);
        bytes memory signature = signed(ALICE_KEY, intent);
        vm.assume(change != 0);
        field %= 7;
        if (field == 0) intent.world = address(uint160(uint256(uint160(world)) ^ (change % type(uint160).max + 1)));
        if (field == 1) intent.id ^= change;
        if (field == 2) intent.amount ^= change;
        if (field == 3) intent.until = uint64(uint256(intent.until) ^ (change % type(uint64).max + 1));
        if (field == 4) intent.nonce ^= change;
        if (field == 5) signature = signed(BOB_KEY, intent);
        if (field == 6) signature = signed(ALICE_KEY, transferOf(alice, world, id, 5, 1));
        vm.expectRevert(abi.encodeWithSelector(Intents.BadSignature.selector, alice));
        assets.lockWithSignature(intent, signature);
    }

    /// A lock that was signed expires like a transfer.
    function test_lock_deadline() public {
        uint256 id = given(alice, 10, 0);
        Intents.Lock memory intent = lockOf(alice, id, 5, 1);
        vm.warp(intent.deadline + 1);
        refusedLock(intent, abi.encodeWithSelector(Intents.IntentExpired.selector, intent.deadline));
    }

    /// A transfer and a lock with one nonce: only the first counts.
    function test_nonces_are_shared() public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 1, 1);
        locked(id, 5, 1);
        refused(intent, signed(ALICE_KEY, intent), abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, 1));
    }

    /// Before its end a lock is the world's to release, and nobody else's, the owner included.
    function testFuzz_release_early(address other) public {
        vm.assume(other != world);
        uint256 id = given(alice, 10, 0);
        Intents.Lock memory intent = locked(id, 7, 1);
        vm.warp(intent.until - 1);
        bytes memory reason = abi.encodeWithSelector(Worlds.StillLocked.selector, alice, world, id, intent.until);
        vm.expectRevert(reason);
        vm.prank(other);
        assets.unlock(alice, world, id);
        vm.expectRevert(reason);
        vm.prank(alice);
        assets.unlock(alice, world, id);
        vm.expectEmit(true, true, true, true);
        emit Worlds.Unlocked(alice, world, id, 7);
        vm.prank(world);
        assets.unlock(alice, world, id);
        eq(assets.lockedOf(alice, id), 0);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 10, "");
    }

    /// Once its time is over anyone may release it, once; then it can be locked anew.
    function testFuzz_release_late(address other) public {
        uint256 id = given(alice, 10, 0);
        Intents.Lock memory intent = locked(id, 7, 1);
        vm.warp(intent.until);
        vm.prank(other);
        assets.unlock(alice, world, id);
        vm.expectRevert(abi.encodeWithSelector(Worlds.NotLocked.selector, alice, world, id));
        vm.prank(world);
        assets.unlock(alice, world, id);
        locked(id, 10, 2);
        eq(assets.lockedOf(alice, id), 10);
    }

    /// What comes in while something is locked is free.
    function test_what_comes_in_is_free() public {
        uint256 id = given(alice, 10, 0);
        locked(id, 10, 1);
        vm.prank(issuer);
        assets.mint(alice, id, 2);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 2, "");
        eq(assets.balanceOf(alice, id), 10);
    }

    /// A wallet contract locks by its own rule too.
    function test_contract_wallet_locks() public {
        address wallet = address(new JointWallet(alice, bob));
        uint256 id = given(wallet, 10, 0);
        Intents.Lock memory intent = lockOf(wallet, id, 4, 1);
        assets.lockWithSignature(intent, bytes.concat(signed(ALICE_KEY, intent), signed(BOB_KEY, intent)));
        eq(assets.lockedOf(wallet, id), 4);
    }

    /// A receiver that releases the sender's expired lock from its hook gets only what was sent.
    function test_unlock_reentered() public {
        uint256 id = given(alice, 10, 0);
        Intents.Lock memory intent = locked(id, 7, 1);
        Reentering receiver = new Reentering(assets);
        receiver.prepare(abi.encodeCall(assets.unlock, (alice, world, id)));
        vm.warp(intent.until);
        vm.prank(alice);
        assets.safeTransferFrom(alice, address(receiver), id, 3, "");
        yes(receiver.succeeded());
        eq(assets.balanceOf(alice, id), 7);
        eq(assets.lockedOf(alice, id), 0);
    }

    // ---- several worlds

    function isLocked(uint256 id, uint256 mine, uint256 others, uint256 third) private view {
        (uint256 a,) = assets.lockOf(alice, id, world);
        (uint256 b,) = assets.lockOf(alice, id, bob);
        (uint256 c,) = assets.lockOf(alice, id, issuer);
        eq(a, mine);
        eq(b, others);
        eq(c, third);
        eq(assets.lockedOf(alice, id), a + b + c);
    }

    function release(address where, uint256 id) private {
        vm.prank(where);
        assets.unlock(alice, where, id);
    }

    function refusedMove(uint256 id, uint256 amount, uint256 free) private {
        vm.expectRevert(abi.encodeWithSelector(Holdings.ItemLocked.selector, alice, id, free));
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, amount, "");
    }

    /// Three worlds come and go, in this order and that: each holds its own part, and what is free is what none holds.
    function test_three_worlds() public {
        uint256 id = given(alice, 10, 0);
        lock(alice, ALICE_KEY, world, id, 1, 1);
        isLocked(id, 1, 0, 0);
        lock(alice, ALICE_KEY, bob, id, 2, 2);
        isLocked(id, 1, 2, 0);
        lock(alice, ALICE_KEY, issuer, id, 4, 3);
        isLocked(id, 1, 2, 4);
        refusedMove(id, 4, 3);
        release(world, id);
        isLocked(id, 0, 2, 4);
        refusedMove(id, 5, 4);
        lock(alice, ALICE_KEY, world, id, 3, 4);
        isLocked(id, 3, 2, 4);
        release(issuer, id);
        release(bob, id);
        isLocked(id, 3, 0, 0);
        refusedMove(id, 8, 7);
        refusedLock(lockOf(alice, id, 1, 5), abi.encodeWithSelector(Worlds.AlreadyLocked.selector, alice, world, id));
        release(world, id);
        isLocked(id, 0, 0, 0);
        lock(alice, ALICE_KEY, bob, id, 10, 6);
        isLocked(id, 0, 10, 0);
        refusedMove(id, 1, 0);
        release(bob, id);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 10, "");
        isLocked(id, 0, 0, 0);
    }

    /// Each world's lock ends at its own time, also the first's, which stood alone at first.
    function test_each_its_own_time() public {
        uint256 id = given(alice, 10, 0);
        Intents.Lock memory first = locked(id, 1, 1);
        Intents.Lock memory second = lockOf(alice, id, 2, 2);
        (second.world, second.until) = (bob, uint64(NOW + 2 days));
        assets.lockWithSignature(second, signed(ALICE_KEY, second));
        (, uint64 until) = assets.lockOf(alice, id, world);
        eq(until, first.until);
        (, until) = assets.lockOf(alice, id, bob);
        eq(until, second.until);
        vm.warp(first.until);
        assets.unlock(alice, world, id);
        vm.expectRevert(abi.encodeWithSelector(Worlds.StillLocked.selector, alice, bob, id, second.until));
        assets.unlock(alice, bob, id);
        vm.warp(second.until);
        assets.unlock(alice, bob, id);
        isLocked(id, 0, 0, 0);
    }

    /// After a release all is free: to move in part, in whole, to burn, to spend, to lock for another world, and more
    /// may have come in between.
    function testFuzz_after_a_release(uint8 way, uint128 amount) public {
        uint256 id = given(alice, 10, 0);
        locked(id, 8, 1);
        release(world, id);
        eq(assets.lockedOf(alice, id), 0);
        vm.prank(issuer);
        assets.mint(alice, id, 5);
        amount = amount % 15 + 1;
        way %= 4;
        if (way == 0) {
            vm.prank(alice);
            assets.safeTransferFrom(alice, bob, id, amount, "");
        } else if (way == 1) {
            vm.prank(alice);
            assets.burn(id, amount);
        } else if (way == 2) {
            Intents.Spend memory intent = spendOf(alice, id, amount, 2);
            assets.allowSpendWithSignature(intent, signed(ALICE_KEY, assets.hashSpend(intent)));
            vm.prank(world);
            assets.spend(alice, id, amount, bob);
        } else {
            lock(alice, ALICE_KEY, bob, id, amount, 2);
            isLocked(id, 0, amount, 0);
            if (amount < 15) refusedMove(id, 16 - amount, 15 - amount);
            vm.prank(alice);
            assets.safeTransferFrom(alice, bob, id, 15 - amount, "");
            eq(assets.balanceOf(alice, id), amount);
            return;
        }
        eq(assets.balanceOf(alice, id), 15 - amount);
        eq(assets.lockedOf(alice, id), 0);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 15 - amount, "");
        eq(assets.balanceOf(alice, id), 0);
    }

    /// A world that was the last of several, or the only one, leaves nothing behind: it may come again in any company.
    function test_they_come_again() public {
        uint256 id = given(alice, 10, 0);
        lock(alice, ALICE_KEY, world, id, 1, 1);
        lock(alice, ALICE_KEY, bob, id, 2, 2);
        release(bob, id);
        release(world, id);
        lock(alice, ALICE_KEY, bob, id, 3, 3);
        lock(alice, ALICE_KEY, world, id, 4, 4);
        isLocked(id, 4, 3, 0);
        release(world, id);
        release(bob, id);
        lock(alice, ALICE_KEY, world, id, 5, 5);
        release(world, id);
        lock(alice, ALICE_KEY, bob, id, 6, 6);
        (uint256 amount, uint64 until) = assets.lockOf(alice, id, world);
        yes(amount == 0 && until == 0);
        isLocked(id, 0, 6, 0);
        lock(alice, ALICE_KEY, issuer, id, 1, 7);
        isLocked(id, 0, 6, 1);
    }

    /// The last of several leaves nothing behind that a later company would see.
    function test_the_last_of_several() public {
        uint256 id = given(alice, 10, 0);
        lock(alice, ALICE_KEY, world, id, 1, 1);
        lock(alice, ALICE_KEY, bob, id, 2, 2);
        release(bob, id);
        release(world, id);
        lock(alice, ALICE_KEY, bob, id, 3, 3);
        lock(alice, ALICE_KEY, issuer, id, 4, 4);
        isLocked(id, 0, 3, 4);
    }

    /// A lock may last a week to the second.
    function test_the_longest() public {
        uint256 id = given(alice, 10, 0);
        Assets.Lock memory intent = lockOf(alice, id, 1, 1);
        intent.until = uint64(NOW + assets.MAX_LOCK_SECONDS());
        assets.lockWithSignature(intent, signed(ALICE_KEY, intent));
        eq(assets.lockedOf(alice, id), 1);
    }

    /// Nobody has locked anything for the zero address, whatever was locked before.
    function test_no_world() public {
        uint256 id = given(alice, 10, 0);
        locked(id, 8, 1);
        release(world, id);
        (uint256 amount, uint64 until) = assets.lockOf(alice, id, address(0));
        yes(amount == 0 && until == 0);
        vm.expectRevert(abi.encodeWithSelector(Worlds.NotLocked.selector, alice, address(0), id));
        assets.unlock(alice, address(0), id);
    }

    // ---- released by signature

    function releaseOf(uint256 id, uint256 nonce) private view returns (Intents.Unlock memory) {
        return Intents.Unlock(alice, world, id, nonce, block.timestamp + 1 hours);
    }

    function refusedRelease(Intents.Unlock memory intent, bytes memory signature, bytes memory reason) private {
        vm.expectRevert(reason);
        assets.unlockWithSignature(intent, signature);
    }

    /// The digest of a release is EIP-712's, spelled out by hand.
    function test_release_digest() public view {
        Intents.Unlock memory intent = releaseOf(1, 3);
        bytes32 body = keccak256(
            abi.encode(
                keccak256("Unlock(address owner,address world,uint256 id,uint256 nonce,uint256 deadline)"), intent
            )
        );
        yes(assets.hashUnlock(intent) == typed(body));
    }

    /// A world releases by signature, through anyone, with a nonce of its own, once.
    function testFuzz_release_by_signature(uint256 nonce, address anyone) public {
        uint256 id = given(alice, 10, 0);
        locked(id, 7, 1);
        Intents.Unlock memory intent = releaseOf(id, nonce);
        bytes memory signature = signed(WORLD_KEY, assets.hashUnlock(intent));
        vm.expectEmit(true, true, true, true);
        emit Intents.NonceUsed(world, nonce);
        vm.expectEmit(true, true, true, true);
        emit Worlds.Unlocked(alice, world, id, 7);
        vm.prank(anyone);
        assets.unlockWithSignature(intent, signature);
        eq(assets.lockedOf(alice, id), 0);
        yes(assets.isNonceUsed(world, nonce));
        yes(nonce == 1 || !assets.isNonceUsed(alice, nonce));
        locked(id, 5, 2);
        refusedRelease(intent, signature, abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, world, nonce));
        eq(assets.lockedOf(alice, id), 5);
    }

    /// A release is the world's will alone, unaltered and in time, of something locked.
    function testFuzz_release_needs_its_signature(uint8 field, uint256 change) public {
        uint256 id = given(alice, 10, 0);
        Intents.Unlock memory intent = releaseOf(id, 1);
        bytes memory signature = signed(WORLD_KEY, assets.hashUnlock(intent));
        refusedRelease(intent, signature, abi.encodeWithSelector(Worlds.NotLocked.selector, alice, world, id));
        locked(id, 7, 1);
        vm.assume(change != 0);
        field %= 6;
        if (field == 0) intent.owner = address(uint160(uint256(uint160(alice)) ^ (change % type(uint160).max + 1)));
        if (field == 1) intent.id ^= change;
        if (field == 2) intent.nonce ^= change;
        if (field == 3) intent.deadline += change % (type(uint256).max - intent.deadline) + 1;
        if (field == 4) signature = signed(ALICE_KEY, assets.hashUnlock(intent));
        if (field == 5) signature = signed(BOB_KEY, assets.hashUnlock(intent));
        refusedRelease(intent, signature, abi.encodeWithSelector(Intents.BadSignature.selector, world));
        intent = releaseOf(id, 1);
        vm.warp(intent.deadline + 1);
        refusedRelease(intent, signature, abi.encodeWithSelector(Intents.IntentExpired.selector, intent.deadline));
        eq(assets.lockedOf(alice, id), 7);
    }
}
