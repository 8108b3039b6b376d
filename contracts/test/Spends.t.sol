// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {Assets} from "../src/Assets.sol";
import {Classes} from "../src/Classes.sol";
import {Holdings} from "../src/Holdings.sol";
import {Intents} from "../src/Intents.sol";
import {Worlds} from "../src/Worlds.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {JointWallet, Reentering, Refusing} from "./support/Wallets.sol";

contract SpendsTest is AssetsTest {
    /// @dev Alice lets the world spend up to `max`, for a day.
    function allowed(uint256 id, uint256 max, uint256 nonce) private returns (Intents.Spend memory intent) {
        intent = spendOf(alice, id, max, nonce);
        assets.allowSpendWithSignature(intent, signed(ALICE_KEY, assets.hashSpend(intent)));
    }

    function refusedSpend(uint256 id, uint256 amount, uint256 left) private {
        vm.expectRevert(abi.encodeWithSelector(Worlds.SpendNotAllowed.selector, alice, world, id, left));
        vm.prank(world);
        assets.spend(alice, id, amount, world);
    }

    function isLeft(uint256 id, uint256 left, uint64 until) private view {
        (uint256 itsLeft, uint64 itsUntil) = assets.spendAllowance(alice, id, world);
        eq(itsLeft, left);
        eq(itsUntil, until);
    }

    /// The digest is EIP-712's, spelled out by hand.
    function test_digest() public view {
        Intents.Spend memory intent = spendOf(alice, 1, 2, 3);
        bytes32 body = keccak256(
            abi.encode(
                keccak256(
                    "Spend(address owner,address world,uint256 id,uint256 max,uint64 until,uint256 nonce,uint256 deadline)"
                ),
                intent
            )
        );
        yes(assets.hashSpend(intent) == typed(body));
    }

    /// A world takes what it was allowed, in parts, and no more.
    function testFuzz_spend(uint128 max, uint128 first, uint256 more) public {
        vm.assume(max != 0);
        first %= max;
        uint256 id = given(alice, type(uint128).max, 0);
        Intents.Spend memory intent = spendOf(alice, id, max, 1);
        bytes memory signature = signed(ALICE_KEY, assets.hashSpend(intent));
        vm.expectEmit(true, true, true, true);
        emit Intents.NonceUsed(alice, 1);
        vm.expectEmit(true, true, true, true);
        emit Worlds.SpendAllowed(alice, world, id, max, intent.until);
        assets.allowSpendWithSignature(intent, signature);
        isLeft(id, max, intent.until);
        vm.expectEmit(true, true, true, true);
        emit Worlds.Spent(alice, world, id, first, bob);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(world, alice, bob, id, first);
        vm.prank(world);
        assets.spend(alice, id, first, bob);
        eq(assets.balanceOf(bob, id), first);
        uint256 left = max - first;
        isLeft(id, left, intent.until);
        more = more > left ? more : left + 1;
        refusedSpend(id, more, left);
        vm.prank(world);
        assets.spend(alice, id, left, bob);
        eq(assets.balanceOf(bob, id), max);
        isLeft(id, 0, 0);
        refusedSpend(id, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, 1));
        assets.allowSpendWithSignature(intent, signature);
    }

    /// To nobody, the units cease to be.
    function test_burning() public {
        uint256 id = given(alice, 10, 10);
        allowed(id, 4, 1);
        vm.expectEmit(true, true, true, true);
        emit Worlds.Spent(alice, world, id, 3, address(0));
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(world, alice, address(0), id, 3);
        vm.prank(world);
        assets.spend(alice, id, 3, address(0));
        eq(assets.totalSupply(id), 7);
        eq(assets.classOf(id).burned, 3);
        eq(assets.balanceOf(alice, id), 7);
    }

    /// At `until` it is over; what was left stands but is worth nothing.
    function test_until() public {
        uint256 id = given(alice, 10, 0);
        Intents.Spend memory intent = allowed(id, 4, 1);
        vm.warp(intent.until - 1);
        vm.prank(world);
        assets.spend(alice, id, 1, world);
        vm.warp(intent.until);
        refusedSpend(id, 1, 0);
        isLeft(id, 3, intent.until);
    }

    /// A permission whose time is past, or that has no end, is as good as it says.
    function test_until_has_no_bounds() public {
        uint256 id = given(alice, 10, 0);
        Intents.Spend memory intent = spendOf(alice, id, 4, 1);
        intent.until = uint64(block.timestamp);
        assets.allowSpendWithSignature(intent, signed(ALICE_KEY, assets.hashSpend(intent)));
        refusedSpend(id, 1, 0);
        (intent.until, intent.nonce) = (type(uint64).max, 2);
        assets.allowSpendWithSignature(intent, signed(ALICE_KEY, assets.hashSpend(intent)));
        vm.prank(world);
        assets.spend(alice, id, 1, world);
    }

    /// A new permission replaces the old, up or down; one of nothing takes it back.
    function test_replaced() public {
        uint256 id = given(alice, 10, 0);
        allowed(id, 4, 1);
        Intents.Spend memory intent = allowed(id, 2, 2);
        isLeft(id, 2, intent.until);
        refusedSpend(id, 3, 2);
        intent = spendOf(alice, id, 0, 3);
        bytes memory signature = signed(ALICE_KEY, assets.hashSpend(intent));
        vm.expectEmit(true, true, true, true);
        emit Worlds.SpendAllowed(alice, world, id, 0, 0);
        assets.allowSpendWithSignature(intent, signature);
        isLeft(id, 0, 0);
        refusedSpend(id, 1, 0);
    }

    /// The owner takes it back by a call too, whether there is one or not.
    function test_revoked() public {
        uint256 id = given(alice, 10, 0);
        allowed(id, 4, 1);
        vm.prank(bob);
        assets.revokeSpend(world, id);
        isLeft(id, 4, uint64(block.timestamp + 1 days));
        vm.expectEmit(true, true, true, true);
        emit Worlds.SpendAllowed(alice, world, id, 0, 0);
        vm.prank(alice);
        assets.revokeSpend(world, id);
        isLeft(id, 0, 0);
        refusedSpend(id, 1, 0);
        vm.prank(alice);
        assets.revokeSpend(world, id);
    }

    /// A permission is one world's, of one owner, for one class: nobody else spends, not even nothing.
    function testFuzz_others(address other) public {
        vm.assume(other != world);
        (uint256 id, uint256 second) = (given(alice, 10, 0), given(alice, 10, 0));
        allowed(id, 4, 1);
        for (uint256 amount = 0; amount < 2; ++amount) {
            vm.expectRevert(abi.encodeWithSelector(Worlds.SpendNotAllowed.selector, alice, other, id, 0));
            vm.prank(other);
            assets.spend(alice, id, amount, other);
            refusedSpend(second, amount, 0);
            vm.expectRevert(abi.encodeWithSelector(Worlds.SpendNotAllowed.selector, bob, world, id, 0));
            vm.prank(world);
            assets.spend(bob, id, amount, other);
        }
    }

    /// Only what is free is spent, and only what is there; a refusal leaves the permission whole.
    function test_only_what_is_free() public {
        uint256 id = given(alice, 10, 0);
        lock(alice, ALICE_KEY, world, id, 7, 1);
        Intents.Spend memory intent = allowed(id, 20, 2);
        bytes memory locked = abi.encodeWithSelector(Holdings.ItemLocked.selector, alice, id, 3);
        vm.expectRevert(locked);
        vm.prank(world);
        assets.spend(alice, id, 4, world);
        vm.expectRevert(locked);
        vm.prank(world);
        assets.spend(alice, id, 4, address(0));
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 10, 11, id));
        vm.prank(world);
        assets.spend(alice, id, 11, world);
        isLeft(id, 20, intent.until);
        vm.prank(world);
        assets.spend(alice, id, 3, world);
        isLeft(id, 17, intent.until);
    }

    /// A permission is its owner's will alone, unaltered, in time, and not beyond any supply.
    function testFuzz_needs_its_signature(uint8 field, uint256 change) public {
        uint256 id = given(alice, 10, 0);
        Intents.Spend memory intent = spendOf(alice, id, 5, 1);
        bytes memory signature = signed(ALICE_KEY, assets.hashSpend(intent));
        vm.assume(change != 0);
        field %= 7;
        if (field == 0) intent.world = address(uint160(uint256(uint160(world)) ^ (change % type(uint160).max + 1)));
        if (field == 1) intent.id ^= change;
        if (field == 2) intent.max ^= change;
        if (field == 3) intent.until = uint64(uint256(intent.until) ^ (change % type(uint64).max + 1));
        if (field == 4) intent.nonce ^= change;
        if (field == 5) signature = signed(BOB_KEY, assets.hashSpend(intent));
        // a lock has the same fields and another name
        if (field == 6) {
            signature = signed(
                ALICE_KEY, Intents.Lock(alice, world, id, intent.max, intent.until, intent.nonce, intent.deadline)
            );
        }
        vm.expectRevert(abi.encodeWithSelector(Intents.BadSignature.selector, alice));
        assets.allowSpendWithSignature(intent, signature);
    }

    /// Too late, and more than any class can have, are refused, the nonce unused.
    function test_refusals() public {
        uint256 id = given(alice, 10, 0);
        uint256 most = type(uint128).max;
        allowed(id, most, 1);
        Intents.Spend memory intent = spendOf(alice, id, most + 1, 2);
        bytes memory signature = signed(ALICE_KEY, assets.hashSpend(intent));
        vm.expectRevert(abi.encodeWithSelector(Classes.CapExceeded.selector, id, uint128(most), most + 1));
        assets.allowSpendWithSignature(intent, signature);
        vm.warp(intent.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(Intents.IntentExpired.selector, intent.deadline));
        assets.allowSpendWithSignature(intent, signature);
        yes(!assets.isNonceUsed(alice, 2));
    }

    /// A world that is a contract and spends again from its hook meets what is left; a receiver that refuses undoes it all.
    function test_hostile_receivers() public {
        uint256 id = given(alice, 10, 0);
        Reentering greedy = new Reentering(assets);
        Intents.Spend memory intent = spendOf(alice, id, 3, 1);
        intent.world = address(greedy);
        assets.allowSpendWithSignature(intent, signed(ALICE_KEY, assets.hashSpend(intent)));
        greedy.prepare(abi.encodeCall(assets.spend, (alice, id, 2, address(greedy))));
        vm.prank(address(greedy));
        assets.spend(alice, id, 2, address(greedy));
        yes(greedy.tried() && !greedy.succeeded());
        eq(greedy.answer(), abi.encodeWithSelector(Worlds.SpendNotAllowed.selector, alice, address(greedy), id, 1));
        eq(assets.balanceOf(address(greedy), id), 2);
        allowed(id, 5, 2);
        address refusing = address(new Refusing());
        vm.expectRevert(abi.encodeWithSelector(Refusing.NotWelcome.selector));
        vm.prank(world);
        assets.spend(alice, id, 1, refusing);
        isLeft(id, 5, uint64(block.timestamp + 1 days));
    }

    /// A wallet contract allows by its own rule.
    function test_contract_wallet() public {
        address wallet = address(new JointWallet(alice, bob));
        uint256 id = given(wallet, 10, 0);
        Intents.Spend memory intent = spendOf(wallet, id, 5, 1);
        bytes32 hash = assets.hashSpend(intent);
        assets.allowSpendWithSignature(intent, bytes.concat(signed(ALICE_KEY, hash), signed(BOB_KEY, hash)));
        vm.prank(world);
        assets.spend(wallet, id, 5, world);
        eq(assets.balanceOf(world, id), 5);
    }
}
