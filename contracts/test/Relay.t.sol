// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {Assets} from "../src/Assets.sol";
import {Intents} from "../src/Intents.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {Bomb, BombWallet, Burning, Costly, Reentering, Refusing} from "./support/Wallets.sol";

contract RelayTest is AssetsTest {
    uint256 private constant GAS_PER_INTENT = 200_000;

    /// @dev Three transfers of alice's: to bob, to `middle`, to bob.
    function batch(address middle)
        private
        returns (uint256 id, Intents.Transfer[] memory intents, bytes[] memory signatures)
    {
        id = given(alice, 10, 0);
        (intents, signatures) = (new Intents.Transfer[](3), new bytes[](3));
        for (uint256 i = 0; i < 3; ++i) {
            intents[i] = transferOf(alice, i == 1 ? middle : bob, id, 1, i);
            signatures[i] = signed(ALICE_KEY, intents[i]);
        }
    }

    /// @dev Relay a batch whose middle intent fails: it is reported with `reason`, the others take effect, and the
    /// whole takes less than `mostGas`.
    function skips(address middle, bytes memory reason, uint256 gasPerIntent, uint256 mostGas) private {
        (uint256 id, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(middle);
        vm.expectEmit(true, true, true, true);
        emit Assets.IntentFailed(alice, 1, reason);
        uint256 before = gasleft();
        uint256 succeeded = assets.relay(intents, signatures, gasPerIntent);
        yes(before - gasleft() < mostGas);
        eq(succeeded, 2);
        eq(assets.balanceOf(bob, id), 2);
        eq(assets.balanceOf(middle, id), 0);
        yes(assets.isNonceUsed(alice, 0) && !assets.isNonceUsed(alice, 1) && assets.isNonceUsed(alice, 2));
    }

    /// All good intents of a batch take effect, with the relayer as their operator; again, none does.
    function test_batch() public {
        (uint256 id, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(bob);
        vm.expectEmit(true, true, true, true);
        emit Intents.NonceUsed(alice, 0);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(world, alice, bob, id, 1);
        vm.prank(world);
        eq(assets.relay(intents, signatures, GAS_PER_INTENT), 3);
        eq(assets.balanceOf(bob, id), 3);
        eq(assets.relay(intents, signatures, GAS_PER_INTENT), 0);
        eq(assets.balanceOf(bob, id), 3);
    }

    /// A batch of nothing does nothing, and one without a signature for each intent is refused.
    function test_lengths() public {
        eq(assets.relay(new Intents.Transfer[](0), new bytes[](0), GAS_PER_INTENT), 0);
        vm.expectRevert(abi.encodeWithSelector(Assets.LengthMismatch.selector, 2, 1));
        assets.relay(new Intents.Transfer[](2), new bytes[](1), GAS_PER_INTENT);
    }

    /// The same intent twice in one batch takes effect once.
    function test_doubled_in_a_batch() public {
        (uint256 id, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(bob);
        (intents[1], signatures[1]) = (intents[0], signatures[0]);
        eq(assets.relay(intents, signatures, GAS_PER_INTENT), 2);
        eq(assets.balanceOf(bob, id), 2);
    }

    /// A receiver that refuses costs the batch its own intent alone.
    function test_refusing_receiver() public {
        skips(address(new Refusing()), abi.encodeWithSelector(Refusing.NotWelcome.selector), GAS_PER_INTENT, 350_000);
    }

    /// A receiver that burns all its gas burns no more than its intent was granted.
    function test_burning_receiver() public {
        address burning = address(new Burning());
        bytes memory reason = abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidReceiver.selector, burning);
        skips(burning, reason, GAS_PER_INTENT, GAS_PER_INTENT + 200_000);
    }

    /// A receiver that refuses with 50,000 bytes has 256 of them reported.
    function test_bomb_receiver() public {
        skips(address(new Bomb()), new bytes(256), GAS_PER_INTENT, 350_000);
    }

    /// A receiver that refuses with a megabyte makes its own intent pay for it (2 million gas to write it and as much to
    /// hand it on), never the batch (as much again to copy it, 8 million to log it).
    function test_great_bomb_receiver() public {
        skips(address(new Bomb()), new bytes(256), 10_000_000, 5_000_000);
    }

    /// A wallet contract whose answer is a bomb costs the batch its own intent alone.
    function test_bomb_wallet() public {
        (uint256 id, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(bob);
        intents[1].from = address(new BombWallet());
        vm.expectEmit(true, true, true, true);
        emit Assets.IntentFailed(
            intents[1].from, 1, abi.encodeWithSelector(Intents.BadSignature.selector, intents[1].from)
        );
        eq(assets.relay(intents, signatures, GAS_PER_INTENT), 2);
        eq(assets.balanceOf(bob, id), 2);
    }

    /// A receiver that relays from its hook the batch it is in changes nothing but the order.
    function test_batch_reentered() public {
        Reentering receiver = new Reentering(assets);
        (uint256 id, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(address(receiver));
        receiver.prepare(abi.encodeCall(assets.relay, (intents, signatures, 100_000)));
        eq(assets.relay(intents, signatures, 1_000_000), 2);
        yes(receiver.tried() && receiver.succeeded());
        eq(abi.decode(receiver.answer(), (uint256)), 1);
        eq(assets.balanceOf(bob, id), 2);
        eq(assets.balanceOf(address(receiver), id), 1);
        eq(assets.balanceOf(alice, id), 7);
    }

    /// A relayer may not grant an intent less than a transfer between plain accounts needs.
    function test_gas_per_intent_has_a_floor() public {
        (, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(bob);
        uint256 least = assets.MIN_GAS_PER_INTENT();
        vm.expectRevert(abi.encodeWithSelector(Assets.GasPerIntentTooLow.selector, least - 1, least));
        assets.relay(intents, signatures, least - 1);
        eq(assets.relay(intents, signatures, least), 3);
    }

    /// However little gas a relayer sends along, no good intent is reported as failed: either all take effect or the
    /// transaction changes nothing. The last receiver's hook needs all that its intent is granted and no less, so 1/64
    /// of it would be enough to report the failure.
    function testFuzz_starved(uint256 gasSent) public {
        address costly = address(new Costly(3_000_000));
        (uint256 id, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(bob);
        intents[2].to = costly;
        signatures[2] = signed(ALICE_KEY, intents[2]);
        bytes memory call = abi.encodeCall(assets.relay, (intents, signatures, 3_120_000));
        (bool success, bytes memory answer) = address(assets).call{gas: 2_900_000 + gasSent % 600_000}(call);
        eq(assets.balanceOf(bob, id), success ? 2 : 0);
        eq(assets.balanceOf(costly, id), success ? 1 : 0);
        if (success) eq(abi.decode(answer, (uint256)), 3);
    }

    /// With all that a batch asks for, the costly receiver gets its item; granted less, it alone fails.
    function test_costly_receiver() public {
        address costly = address(new Costly(3_000_000));
        (uint256 id, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(costly);
        eq(assets.relay(intents, signatures, 3_000_000), 2);
        eq(assets.balanceOf(costly, id), 0);
        eq(assets.relay(intents, signatures, 3_120_000), 1);
        eq(assets.balanceOf(costly, id), 1);
    }

    /// The refusal of a starved batch says how much gas was missing, also where the demand is absurd.
    function test_starved_says_so() public {
        (, Intents.Transfer[] memory intents, bytes[] memory signatures) = batch(bob);
        (bool success, bytes memory answer) =
            address(assets).call(abi.encodeCall(assets.relay, (intents, signatures, type(uint256).max)));
        yes(!success && bytes4(answer) == Assets.NotEnoughGas.selector);
    }
}
