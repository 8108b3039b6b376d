// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {Assets} from "../src/Assets.sol";
import {Intents} from "../src/Intents.sol";
import {Holdings} from "../src/Holdings.sol";
import {AssetsTest} from "./support/AssetsTest.sol";

/// @notice Units that never change hands.
contract SoulboundTest is AssetsTest {
    uint256 private id;
    bytes private reason;

    function setUp() public override {
        super.setUp();
        id = bound(alice, 10);
        reason = abi.encodeWithSelector(Holdings.Soulbound.selector, id);
    }

    /// They are locked from the moment they are made, for no world.
    function test_locked_from_the_first() public view {
        eq(assets.lockedOf(alice, id), 10);
        (uint256 amount, uint64 until) = assets.lockOf(alice, id, world);
        yes(amount == 0 && until == 0);
        (amount, until) = assets.lockOf(alice, id, address(0));
        yes(amount == 0 && until == 0);
    }

    /// By no way there is do they move: call, operator, batch, signature, swap, lock or spend; nor to oneself.
    function testFuzz_never_moves(uint256 amount) public {
        amount = amount % 10 + 1;
        vm.expectRevert(reason);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, amount, "");
        vm.expectRevert(reason);
        vm.prank(alice);
        assets.safeTransferFrom(alice, alice, id, amount, "");
        vm.prank(alice);
        assets.setApprovalForAll(bob, true);
        (uint256[] memory ids, uint256[] memory amounts) = (new uint256[](1), new uint256[](1));
        (ids[0], amounts[0]) = (id, amount);
        vm.expectRevert(reason);
        vm.prank(bob);
        assets.safeBatchTransferFrom(alice, bob, ids, amounts, "");
        Intents.Transfer memory transfer = transferOf(alice, bob, id, amount, 1);
        refused(transfer, signed(ALICE_KEY, transfer), reason);
        Intents.BatchTransfer memory batch = batchOf(alice, bob, ids, amounts, 1);
        bytes memory signature = signed(ALICE_KEY, assets.hashBatchTransfer(batch));
        vm.expectRevert(reason);
        assets.batchTransferWithSignature(batch, signature);
        Intents.Swap memory swap = swapOf(alice, bob, id, amount, 0, 0, 1);
        bytes memory other = signed(BOB_KEY, assets.hashSwap(swap));
        signature = signed(ALICE_KEY, assets.hashSwap(swap));
        vm.expectRevert(reason);
        assets.swapWithSignatures(swap, signature, other);
        Intents.Lock memory intent = lockOf(alice, id, amount, 1);
        signature = signed(ALICE_KEY, intent);
        vm.expectRevert(reason);
        assets.lockWithSignature(intent, signature);
        Intents.Spend memory permission = spendOf(alice, id, amount, 1);
        assets.allowSpendWithSignature(permission, signed(ALICE_KEY, assets.hashSpend(permission)));
        vm.expectRevert(reason);
        vm.prank(world);
        assets.spend(alice, id, amount, bob);
        vm.expectRevert(reason);
        vm.prank(world);
        assets.spend(alice, id, amount, address(0));
        eq(assets.balanceOf(alice, id), 10);
    }

    /// Their holder alone may burn them; the rest stays bound, and so does what comes later.
    function testFuzz_burn(uint256 amount) public {
        amount %= 11;
        vm.prank(alice);
        assets.burn(id, amount);
        eq(assets.balanceOf(alice, id), 10 - amount);
        eq(assets.lockedOf(alice, id), 10 - amount);
        eq(assets.totalSupply(id), 10 - amount);
        vm.expectRevert(
            abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 10 - amount, 11, id)
        );
        vm.prank(alice);
        assets.burn(id, 11);
        vm.prank(issuer);
        assets.mint(alice, id, 5);
        eq(assets.lockedOf(alice, id), 15 - amount);
        vm.expectRevert(reason);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 1, "");
    }

    /// More than there is is refused as that; nothing can be moved, as of any class.
    function test_edges() public {
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 10, 11, id));
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 11, "");
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 0, "");
        eq(assets.balanceOf(bob, id), 0);
    }
}
