// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assets} from "../src/Assets.sol";
import {Intents} from "../src/Intents.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {JointWallet} from "./support/Wallets.sol";

/// @notice What each action costs as a transaction of its own: the whole receipt, with the 21,000 and the calldata
/// (`isolate` makes each top-level call one). The figures go to snapshots/Gas.json and from there to docs/contract.md.
/// forge-config: default.isolate = true
contract GasTest is AssetsTest {
    uint256 private constant FIRST_NONCE = 1 << 20;

    function measured(string memory name) private returns (uint256) {
        return vm.snapshotGasLastCall("Gas", name);
    }

    /// Classes and mints.
    function test_issue() public {
        vm.prank(issuer);
        uint256 id = assets.createClass("salt", terms(1), DIGEST);
        measured("createClass");
        vm.prank(issuer);
        assets.mint(alice, id, 1);
        measured("mint");
    }

    /// One transfer: the first of two accounts (a new word of nonces, a new balance), then one between the same again.
    function test_single() public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 1, FIRST_NONCE);
        bytes memory signature = signed(ALICE_KEY, intent);
        assets.transferWithSignature(intent, signature);
        measured("transferWithSignature, first");
        intent.nonce += 1;
        signature = signed(ALICE_KEY, intent);
        assets.transferWithSignature(intent, signature);
        measured("transferWithSignature, warm");
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 1, "");
        measured("safeTransferFrom, warm");
    }

    /// A batch of 100 by one holder to one receiver who have dealt before, and by 100 to 100 who have not.
    function test_batches() public {
        uint256 id = given(alice, 1_000, 0);
        (Intents.Transfer[] memory intents, bytes[] memory signatures) = (new Intents.Transfer[](100), new bytes[](100));
        for (uint256 round = 0; round < 2; ++round) {
            for (uint256 i = 0; i < 100; ++i) {
                intents[i] = transferOf(alice, bob, id, 1, FIRST_NONCE + round * 100 + i);
                signatures[i] = signed(ALICE_KEY, intents[i]);
            }
            eq(assets.relay(intents, signatures, 100_000), 100);
            if (round == 1) measured("relay, 100 warm");
        }
        for (uint256 i = 0; i < 100; ++i) {
            vm.prank(issuer);
            assets.mint(vm.addr(1_000 + i), id, 2);
            intents[i] = transferOf(vm.addr(1_000 + i), vm.addr(2_000 + i), id, 1, FIRST_NONCE);
            signatures[i] = signed(1_000 + i, intents[i]);
        }
        eq(assets.relay(intents, signatures, 100_000), 100);
        measured("relay, 100 strangers");
    }

    /// The floor of a batch's gas per intent has a third to spare over the dearest transfer between plain accounts: every
    /// slot cold and new. (Here without the 21,000 of a transaction, but with its calldata.)
    function test_floor() public {
        uint256 id = given(alice, 2, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 1, FIRST_NONCE);
        bytes memory signature = signed(ALICE_KEY, intent);
        assets.transferWithSignature(intent, signature);
        uint256 taken = measured("transferWithSignature, first") - 21_000;
        yes(taken * 4 / 3 < assets.MIN_GAS_PER_INTENT());
    }

    /// Cancelling, locking and releasing.
    function test_rest() public {
        uint256 id = given(alice, 10, 0);
        vm.prank(alice);
        assets.cancel(FIRST_NONCE);
        measured("cancel, first");
        vm.prank(alice);
        assets.cancel(FIRST_NONCE + 1);
        measured("cancel, warm");
        Intents.Lock memory intent = lockOf(alice, id, 5, FIRST_NONCE + 2);
        bytes memory signature = signed(ALICE_KEY, intent);
        assets.lockWithSignature(intent, signature);
        measured("lockWithSignature");
        vm.prank(world);
        assets.unlock(alice, world, id);
        measured("unlock");
    }

    /// A wallet contract of two keys.
    function test_contract_wallet() public {
        JointWallet wallet = new JointWallet(alice, bob);
        uint256 id = given(address(wallet), 10, 0);
        Intents.Transfer memory intent = transferOf(address(wallet), bob, id, 1, FIRST_NONCE);
        bytes memory both = bytes.concat(signed(ALICE_KEY, intent), signed(BOB_KEY, intent));
        assets.transferWithSignature(intent, both);
        measured("transferWithSignature, contract wallet, first");
    }

    /// The deployment.
    function test_deploy() public {
        new Assets();
        measured("deploy");
    }
}
