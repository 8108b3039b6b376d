// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {Classes} from "../src/Classes.sol";
import {Holdings} from "../src/Holdings.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {Reentering} from "./support/Wallets.sol";

/// @notice Terms, minters, burning, updates of descriptors, royalties.
contract IssuingTest is AssetsTest {
    string private constant OLD = "ipfs://f01551220";

    function updatable(Classes.Policy policy, uint32 delay) private returns (uint256) {
        Classes.Terms memory its = terms(0);
        (its.policy, its.delay) = (policy, delay);
        return madeBy(issuer, its);
    }

    function badTerms(Classes.Terms memory its, uint8 what) private {
        vm.expectRevert(abi.encodeWithSelector(Classes.BadTerms.selector, what));
        assets.createClass("bad", its, DIGEST);
    }

    // ---- terms

    /// A delay belongs to the policy that has one, and is at most a year.
    function test_bad_delays() public {
        Classes.Terms memory its = terms(0);
        its.delay = 1;
        badTerms(its, 1);
        its.policy = Classes.Policy.ISSUER;
        badTerms(its, 1);
        its.policy = Classes.Policy.DELAYED;
        assets.createClass("good", its, DIGEST);
        its.delay = 0;
        badTerms(its, 1);
        its.delay = 365 days + 1;
        badTerms(its, 1);
        its.delay = 365 days;
        assets.createClass("better", its, DIGEST);
    }

    /// A royalty has a receiver, and a receiver a royalty, of at most half.
    function test_bad_royalties() public {
        Classes.Terms memory its = terms(0);
        its.royaltyBps = 1;
        badTerms(its, 2);
        (its.royaltyBps, its.royaltyReceiver) = (0, bob);
        badTerms(its, 2);
        its.royaltyBps = 5_001;
        badTerms(its, 2);
        its.royaltyBps = 5_000;
        assets.createClass("good", its, DIGEST);
    }

    /// A royalty is its share of any price, rounded down, without overflow; without one it is nothing for nobody.
    function testFuzz_royalty(uint16 bps, uint256 price) public {
        bps %= 5_001;
        Classes.Terms memory its = terms(0);
        if (bps != 0) (its.royaltyReceiver, its.royaltyBps) = (bob, bps);
        uint256 id = madeBy(issuer, its);
        (address receiver, uint256 amount) = assets.royaltyInfo(id, price);
        yes(receiver == (bps == 0 ? address(0) : bob));
        // price = 10000 * q + r
        eq(amount, price / 10_000 * bps + price % 10_000 * bps / 10_000);
        (receiver, amount) = assets.royaltyInfo(id + 1, price);
        yes(receiver == address(0) && amount == 0);
    }

    // ---- minters

    /// A minter makes what it was allowed, and no more; setting it anew replaces what was left.
    function testFuzz_minter(uint128 allowance, uint128 first, uint128 second) public {
        vm.assume(allowance != 0);
        uint256 id = given(alice, 0, 0);
        first %= allowance;
        vm.expectEmit(true, true, true, true);
        emit Classes.MinterSet(id, world, allowance);
        vm.prank(issuer);
        assets.setMinter(id, world, allowance);
        eq(assets.mintAllowance(id, world), allowance);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(world, address(0), bob, id, first);
        vm.prank(world);
        assets.mint(bob, id, first);
        uint128 left = allowance - first;
        eq(assets.mintAllowance(id, world), left);
        if (second > left) {
            vm.expectRevert(abi.encodeWithSelector(Classes.NotMinter.selector, id, world, left));
            vm.prank(world);
            assets.mint(bob, id, second);
        }
        vm.prank(world);
        assets.mint(bob, id, left);
        eq(assets.balanceOf(bob, id), allowance);
        eq(assets.mintAllowance(id, world), 0);
        vm.prank(issuer);
        assets.setMinter(id, world, 1);
        eq(assets.mintAllowance(id, world), 1);
        vm.prank(issuer);
        assets.setMinter(id, world, 0);
        vm.expectRevert(abi.encodeWithSelector(Classes.NotMinter.selector, id, world, 0));
        vm.prank(world);
        assets.mint(bob, id, 0);
    }

    /// A minter is one of one class, held to its cap, and can't make others minters.
    function test_minters_bounds() public {
        (uint256 id, uint256 other) = (given(alice, 4, 5), given(alice, 0, 0));
        vm.prank(issuer);
        assets.setMinter(id, world, 10);
        vm.expectRevert(abi.encodeWithSelector(Classes.CapExceeded.selector, id, uint128(5), uint256(6)));
        vm.prank(world);
        assets.mint(world, id, 2);
        eq(assets.mintAllowance(id, world), 10);
        vm.expectRevert(abi.encodeWithSelector(Classes.NotMinter.selector, other, world, 0));
        vm.prank(world);
        assets.mint(world, other, 1);
        vm.expectRevert(abi.encodeWithSelector(Classes.NotIssuer.selector, id, world));
        vm.prank(world);
        assets.setMinter(id, world, 100);
        vm.expectRevert(abi.encodeWithSelector(Classes.UnknownClass.selector, 7));
        vm.prank(issuer);
        assets.setMinter(7, world, 100);
    }

    /// The issuer needs no allowance and uses none, not even one it gave itself.
    function test_issuer_as_minter() public {
        uint256 id = given(alice, 0, 0);
        vm.prank(issuer);
        assets.setMinter(id, issuer, 1);
        vm.prank(issuer);
        assets.mint(alice, id, 5);
        eq(assets.mintAllowance(id, issuer), 1);
    }

    /// A minter whose hook mints again meets what is left of its allowance.
    function test_minter_reenters() public {
        Reentering minter = new Reentering(assets);
        uint256 id = given(alice, 0, 0);
        vm.prank(issuer);
        assets.setMinter(id, address(minter), 3);
        minter.prepare(abi.encodeCall(assets.mint, (address(minter), id, 2)));
        vm.prank(address(minter));
        assets.mint(address(minter), id, 2);
        yes(minter.tried() && !minter.succeeded());
        eq(minter.answer(), abi.encodeWithSelector(Classes.NotMinter.selector, id, address(minter), 1));
    }

    /// Nobody gets new units at no address.
    function test_mint_to_nobody() public {
        uint256 id = given(alice, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidReceiver.selector, address(0)));
        vm.prank(issuer);
        assets.mint(address(0), id, 1);
    }

    // ---- burning

    /// What is burned is gone, counted, and still counts against the cap.
    function testFuzz_burn(uint128 cap, uint128 held, uint128 amount) public {
        vm.assume(cap != 0);
        held = cap == type(uint128).max ? held : held % (cap + 1);
        amount = held == type(uint128).max ? amount : amount % (held + 1);
        uint256 id = given(alice, held, cap);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(alice, alice, address(0), id, amount);
        vm.prank(alice);
        assets.burn(id, amount);
        eq(assets.balanceOf(alice, id), held - amount);
        eq(assets.totalSupply(id), held - amount);
        eq(assets.classOf(id).burned, amount);
        eq(assets.classOf(id).minted, held);
        uint256 wanted = uint256(cap) + 1;
        vm.expectRevert(abi.encodeWithSelector(Classes.CapExceeded.selector, id, cap, wanted));
        vm.prank(issuer);
        assets.mint(alice, id, wanted - held);
    }

    /// Nobody burns what they don't have, or what is locked.
    function test_burn_refused() public {
        uint256 id = given(alice, 10, 0);
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, bob, 0, 1, id));
        vm.prank(bob);
        assets.burn(id, 1);
        lock(alice, ALICE_KEY, world, id, 7, 1);
        vm.expectRevert(abi.encodeWithSelector(Holdings.ItemLocked.selector, alice, id, 3));
        vm.prank(alice);
        assets.burn(id, 4);
        vm.prank(alice);
        assets.burn(id, 3);
        eq(assets.balanceOf(alice, id), 7);
    }

    // ---- updates

    /// A frozen class keeps its descriptor.
    function test_frozen() public {
        uint256 id = updatable(Classes.Policy.FROZEN, 0);
        vm.expectRevert(abi.encodeWithSelector(Classes.ClassFrozen.selector, id));
        vm.prank(issuer);
        assets.updateClass(id, "new");
    }

    /// An issuer's class changes at once, version by version, each naming the one before.
    function testFuzz_update_at_once(bytes32 first, bytes32 second) public {
        uint256 id = updatable(Classes.Policy.ISSUER, 0);
        vm.expectEmit(true, true, true, true);
        emit Classes.ClassUpdated(id, 2, first, DIGEST);
        vm.prank(issuer);
        assets.updateClass(id, first);
        vm.expectEmit(true, true, true, true);
        emit Classes.ClassUpdated(id, 3, second, first);
        vm.prank(issuer);
        assets.updateClass(id, second);
        yes(assets.classOf(id).digest == second && assets.classOf(id).version == 3);
        (bytes32 pending, uint64 from) = assets.pendingUpdateOf(id);
        yes(pending == 0 && from == 0);
    }

    /// An update tells the class's new address, as ERC-1155 wants.
    function test_update_tells_the_uri() public {
        uint256 id = updatable(Classes.Policy.ISSUER, 0);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.URI(string.concat(OLD, "0000000000000000000000000000000000000000000000000000000000000abc"), id);
        vm.prank(issuer);
        assets.updateClass(id, bytes32(uint256(0xabc)));
        eq(
            bytes(assets.uri(id)),
            bytes(string.concat(OLD, "0000000000000000000000000000000000000000000000000000000000000abc"))
        );
    }

    /// A delayed update takes effect from its announced second on, by anyone, once.
    function testFuzz_delayed(uint32 delay, address anyone) public {
        delay = delay % 365 days + 1;
        uint256 id = updatable(Classes.Policy.DELAYED, delay);
        uint64 due = uint64(block.timestamp) + delay;
        vm.expectEmit(true, true, true, true);
        emit Classes.UpdateProposed(id, 2, "new", due);
        vm.prank(issuer);
        assets.updateClass(id, "new");
        (bytes32 pending, uint64 from) = assets.pendingUpdateOf(id);
        yes(pending == "new" && from == due && assets.classOf(id).digest == DIGEST);
        vm.warp(due - 1);
        vm.expectRevert(abi.encodeWithSelector(Classes.UpdateNotDue.selector, id, due));
        vm.prank(anyone);
        assets.applyUpdate(id);
        vm.warp(due);
        vm.expectEmit(true, true, true, true);
        emit Classes.ClassUpdated(id, 2, "new", DIGEST);
        vm.prank(anyone);
        assets.applyUpdate(id);
        yes(assets.classOf(id).digest == "new" && assets.classOf(id).version == 2);
        (pending, from) = assets.pendingUpdateOf(id);
        yes(pending == 0 && from == 0);
        vm.expectRevert(abi.encodeWithSelector(Classes.NoUpdate.selector, id));
        assets.applyUpdate(id);
    }

    /// A second proposal replaces the first and waits its full time.
    function test_proposal_replaced() public {
        uint256 id = updatable(Classes.Policy.DELAYED, 1 days);
        vm.prank(issuer);
        assets.updateClass(id, "one");
        vm.warp(NOW + 1 days - 1);
        vm.prank(issuer);
        assets.updateClass(id, "two");
        vm.warp(NOW + 1 days);
        vm.expectRevert(abi.encodeWithSelector(Classes.UpdateNotDue.selector, id, uint64(NOW + 2 days - 1)));
        assets.applyUpdate(id);
        vm.warp(NOW + 2 days - 1);
        assets.applyUpdate(id);
        yes(assets.classOf(id).digest == "two");
    }

    /// A proposal can be taken back, even when it is due, by the issuer alone.
    function test_withdrawn() public {
        uint256 id = updatable(Classes.Policy.DELAYED, 1 days);
        vm.prank(issuer);
        assets.updateClass(id, "new");
        vm.warp(NOW + 2 days);
        vm.expectRevert(abi.encodeWithSelector(Classes.NotIssuer.selector, id, alice));
        vm.prank(alice);
        assets.withdrawUpdate(id);
        vm.expectEmit(true, true, true, true);
        emit Classes.UpdateWithdrawn(id, 2);
        vm.prank(issuer);
        assets.withdrawUpdate(id);
        (bytes32 pending, uint64 from) = assets.pendingUpdateOf(id);
        yes(pending == 0 && from == 0);
        bytes memory none = abi.encodeWithSelector(Classes.NoUpdate.selector, id);
        vm.expectRevert(none);
        assets.applyUpdate(id);
        vm.expectRevert(none);
        vm.prank(issuer);
        assets.withdrawUpdate(id);
    }

    /// Nobody else's class, and none that isn't there, can be updated.
    function testFuzz_updates_are_the_issuers(address other) public {
        vm.assume(other != issuer);
        uint256 id = updatable(Classes.Policy.ISSUER, 0);
        vm.expectRevert(abi.encodeWithSelector(Classes.NotIssuer.selector, id, other));
        vm.prank(other);
        assets.updateClass(id, "mine");
        bytes memory unknown = abi.encodeWithSelector(Classes.UnknownClass.selector, 7);
        vm.expectRevert(unknown);
        vm.prank(other);
        assets.updateClass(7, "mine");
        vm.expectRevert(unknown);
        assets.withdrawUpdate(7);
        vm.expectRevert(abi.encodeWithSelector(Classes.NoUpdate.selector, 7));
        assets.applyUpdate(7);
    }
}
