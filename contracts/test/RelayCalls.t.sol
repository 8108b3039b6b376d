// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {Assets} from "../src/Assets.sol";
import {Intents} from "../src/Intents.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {Bomb, Burning, Costly, Reentering} from "./support/Wallets.sol";

/// @notice Batches of signed intents of all kinds.
contract RelayCallsTest is AssetsTest {
    uint256 private constant GAS_PER_CALL = 300_000;

    function transferCall(address to, uint256 id, uint256 amount, uint256 nonce) private view returns (bytes memory) {
        Intents.Transfer memory intent = transferOf(alice, to, id, amount, nonce);
        return abi.encodeCall(assets.transferWithSignature, (intent, signed(ALICE_KEY, intent)));
    }

    /// @dev Three transfers of alice's: to bob, to `middle`, to bob.
    function batch(address middle) private returns (uint256 id, bytes[] memory calls) {
        id = given(alice, 10, 0);
        calls = new bytes[](3);
        for (uint256 i = 0; i < 3; ++i) {
            calls[i] = transferCall(i == 1 ? middle : bob, id, 1, i);
        }
    }

    /// @dev Relay calls of which the second fails with `reason`, for less than `mostGas`.
    function skips(bytes[] memory calls, bytes memory reason, uint256 gasPerCall, uint256 mostGas) private {
        vm.expectEmit(true, true, true, true);
        emit Assets.CallFailed(1, reason);
        uint256 before = gasleft();
        uint256 succeeded = assets.relayCalls(calls, gasPerCall);
        yes(before - gasleft() < mostGas);
        eq(succeeded, 2);
        yes(assets.isNonceUsed(alice, 0) && !assets.isNonceUsed(alice, 1) && assets.isNonceUsed(alice, 2));
    }

    /// One batch carries every kind of intent, each in the submitter's name.
    function test_all_kinds() public {
        (uint256 id, uint256 gold) = (given(alice, 10, 0), given(bob, 10, 0));
        bytes[] memory calls = new bytes[](6);
        calls[0] = transferCall(bob, id, 1, 0);
        {
            (uint256[] memory ids, uint256[] memory amounts) = (new uint256[](1), new uint256[](1));
            (ids[0], amounts[0]) = (id, 1);
            Intents.BatchTransfer memory many = batchOf(alice, bob, ids, amounts, 1);
            calls[1] = abi.encodeCall(
                assets.batchTransferWithSignature, (many, signed(ALICE_KEY, assets.hashBatchTransfer(many)))
            );
        }
        Intents.Lock memory hold = lockOf(alice, id, 3, 2);
        calls[2] = abi.encodeCall(assets.lockWithSignature, (hold, signed(ALICE_KEY, hold)));
        Intents.Unlock memory release = Intents.Unlock(alice, world, id, 3, block.timestamp);
        calls[3] = abi.encodeCall(assets.unlockWithSignature, (release, signed(WORLD_KEY, assets.hashUnlock(release))));
        Intents.Spend memory permission = spendOf(alice, id, 3, 4);
        calls[4] = abi.encodeCall(
            assets.allowSpendWithSignature, (permission, signed(ALICE_KEY, assets.hashSpend(permission)))
        );
        Intents.Swap memory swap = swapOf(alice, bob, id, 1, gold, 5, 5);
        bytes32 hash = assets.hashSwap(swap);
        calls[5] = abi.encodeCall(assets.swapWithSignatures, (swap, signed(ALICE_KEY, hash), signed(BOB_KEY, hash)));
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(world, alice, bob, id, 1);
        vm.prank(world);
        eq(assets.relayCalls(calls, GAS_PER_CALL), 6);
        eq(assets.balanceOf(bob, id), 3);
        eq(assets.balanceOf(alice, gold), 5);
        eq(assets.lockedOf(alice, id), 0);
        eq(assets.relayCalls(calls, GAS_PER_CALL), 0);
    }

    /// Whatever is not a signed intent is skipped, above all what would act in the submitter's own name.
    function test_not_relayable() public {
        (uint256 id, bytes[] memory calls) = batch(bob);
        vm.prank(world);
        assets.setApprovalForAll(alice, false);
        bytes[] memory others = new bytes[](9);
        others[0] = abi.encodeCall(assets.safeTransferFrom, (alice, bob, id, 1, ""));
        others[1] = abi.encodeCall(assets.setApprovalForAll, (bob, true));
        others[2] = abi.encodeCall(assets.mint, (bob, id, 1));
        others[3] = abi.encodeCall(assets.burn, (id, 1));
        others[4] = abi.encodeCall(assets.cancel, (1));
        others[5] = abi.encodeCall(assets.relayCalls, (calls, GAS_PER_CALL));
        others[6] = abi.encodeCall(assets.unlock, (alice, world, id));
        others[7] = "";
        others[8] = hex"0102";
        for (uint256 i = 0; i < others.length; ++i) {
            calls[1] = others[i];
            vm.expectEmit(true, true, true, true);
            emit Assets.CallFailed(1, abi.encodeWithSelector(Assets.NotRelayable.selector, bytes4(others[i])));
            vm.prank(alice);
            eq(assets.relayCalls(calls, GAS_PER_CALL), i == 0 ? 2 : 0);
        }
        eq(assets.balanceOf(bob, id), 2);
        yes(!assets.isApprovedForAll(alice, bob));
    }

    /// Calldata that doesn't decode fails alone, without a reason.
    function test_garbage() public {
        (, bytes[] memory calls) = batch(bob);
        calls[1] = abi.encodePacked(assets.swapWithSignatures.selector, bytes32(type(uint256).max));
        skips(calls, "", GAS_PER_CALL, 400_000);
    }

    /// A receiver that burns all its gas burns no more than its call was granted; one that says much is cut short.
    function test_hostile_receivers() public {
        address burning = address(new Burning());
        (, bytes[] memory calls) = batch(burning);
        skips(
            calls,
            abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidReceiver.selector, burning),
            GAS_PER_CALL,
            GAS_PER_CALL + 250_000
        );
    }

    /// One that says a megabyte makes its own call pay, not the batch.
    function test_bomb() public {
        (, bytes[] memory calls) = batch(address(new Bomb()));
        skips(calls, new bytes(256), 10_000_000, 5_000_000);
    }

    /// A receiver that relays from its hook the batch it is in changes nothing but the order.
    function test_reentered() public {
        Reentering receiver = new Reentering(assets);
        (uint256 id, bytes[] memory calls) = batch(address(receiver));
        receiver.prepare(abi.encodeCall(assets.relayCalls, (calls, 100_000)));
        eq(assets.relayCalls(calls, 1_000_000), 2);
        yes(receiver.tried() && receiver.succeeded());
        eq(abi.decode(receiver.answer(), (uint256)), 1);
        eq(assets.balanceOf(bob, id), 2);
        eq(assets.balanceOf(address(receiver), id), 1);
    }

    /// The grant has a floor, and a batch of nothing does nothing.
    function test_floor() public {
        (, bytes[] memory calls) = batch(bob);
        uint256 least = assets.MIN_GAS_PER_INTENT();
        vm.expectRevert(abi.encodeWithSelector(Assets.GasPerIntentTooLow.selector, least - 1, least));
        assets.relayCalls(calls, least - 1);
        eq(assets.relayCalls(calls, least), 3);
        eq(assets.relayCalls(new bytes[](0), least), 0);
    }

    /// However little gas is sent along, either all good calls take effect or nothing does.
    function testFuzz_starved(uint256 gasSent) public {
        address costly = address(new Costly(1_000_000));
        (uint256 id, bytes[] memory calls) = batch(bob);
        calls[2] = transferCall(costly, id, 1, 2);
        bytes memory call = abi.encodeCall(assets.relayCalls, (calls, 1_120_000));
        (bool success, bytes memory answer) = address(assets).call{gas: 950_000 + gasSent % 500_000}(call);
        eq(assets.balanceOf(bob, id), success ? 2 : 0);
        eq(assets.balanceOf(costly, id), success ? 1 : 0);
        if (success) eq(abi.decode(answer, (uint256)), 3);
        else yes(answer.length == 0 || bytes4(answer) == Assets.NotEnoughGas.selector);
    }
}
