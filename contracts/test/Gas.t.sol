// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assets} from "../src/Assets.sol";
import {Classes} from "../src/Classes.sol";
import {Intents} from "../src/Intents.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {JointWallet, Plain} from "./support/Wallets.sol";

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

    /// OpenZeppelin's own ledger, for comparison: between holders, by the holder.
    function test_openzeppelin() public {
        Plain plain = new Plain();
        plain.mint(alice, 1, 10);
        plain.mint(bob, 1, 10);
        vm.prank(alice);
        plain.safeTransferFrom(alice, bob, 1, 1, "");
        measured("safeTransferFrom, OpenZeppelin's, warm");
    }

    /// The floor of a batch's gas per intent covers the dearest intents about one class between plain accounts, every slot
    /// cold and new, with their calldata and a twentieth to spare: a transfer, and a lock by a world that is the second to
    /// lock.
    function test_floor() public {
        uint256 id = given(alice, 10, 0);
        uint256 floor = assets.MIN_GAS_PER_INTENT();
        Intents.Transfer memory intent = transferOf(alice, bob, id, 1, FIRST_NONCE);
        bytes memory signature = signed(ALICE_KEY, intent);
        assets.transferWithSignature(intent, signature);
        yes((measured("transferWithSignature, first") - 21_000) * 21 / 20 < floor);
        Intents.Lock memory one = lockOf(alice, id, 5, 0);
        assets.lockWithSignature(one, signed(ALICE_KEY, one));
        Intents.Lock memory other = lockOf(alice, id, 2, 2 * FIRST_NONCE);
        other.world = bob;
        signature = signed(ALICE_KEY, other);
        assets.lockWithSignature(other, signature);
        yes((measured("lockWithSignature, a second world's, first") - 21_000) * 21 / 20 < floor);
    }

    /// Many classes in one signature.
    function test_batch_transfer() public {
        uint256[] memory ids = new uint256[](10);
        uint256[] memory amounts = new uint256[](10);
        for (uint256 i = 0; i < 10; ++i) {
            (ids[i], amounts[i]) = (given(alice, 10, 0), 1);
            vm.prank(alice);
            assets.safeTransferFrom(alice, bob, ids[i], 1, "");
        }
        vm.prank(alice);
        assets.cancel(FIRST_NONCE);
        Intents.BatchTransfer memory intent = batchOf(alice, bob, ids, amounts, FIRST_NONCE + 1);
        bytes memory signature = signed(ALICE_KEY, assets.hashBatchTransfer(intent));
        assets.batchTransferWithSignature(intent, signature);
        measured("batchTransferWithSignature, 10 classes, warm");
    }

    /// One item for another, between holders of both and between strangers.
    function test_swap() public {
        (uint256 lantern, uint256 gold) = (given(alice, 10, 0), given(bob, 1_000, 0));
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 100, FIRST_NONCE);
        bytes memory one = signed(ALICE_KEY, assets.hashSwap(intent));
        bytes memory two = signed(BOB_KEY, assets.hashSwap(intent));
        assets.swapWithSignatures(intent, one, two);
        measured("swapWithSignatures, 1 for 1, first");
        intent = swapOf(alice, bob, lantern, 1, gold, 100, FIRST_NONCE + 1);
        one = signed(ALICE_KEY, assets.hashSwap(intent));
        two = signed(BOB_KEY, assets.hashSwap(intent));
        assets.swapWithSignatures(intent, one, two);
        measured("swapWithSignatures, 1 for 1, warm");
    }

    /// A batch of calls: 100 transfers as in a plain batch.
    function test_calls() public {
        uint256 id = given(alice, 1_000, 0);
        bytes[] memory calls = new bytes[](100);
        for (uint256 round = 0; round < 2; ++round) {
            for (uint256 i = 0; i < 100; ++i) {
                Intents.Transfer memory intent = transferOf(alice, bob, id, 1, FIRST_NONCE + round * 100 + i);
                calls[i] = abi.encodeCall(assets.transferWithSignature, (intent, signed(ALICE_KEY, intent)));
            }
            eq(assets.relayCalls(calls, 100_000), 100);
        }
        measured("relayCalls, 100 transfers, warm");
    }

    /// Cancelling, locking and releasing.
    function test_locks() public {
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
        intent.nonce += 1;
        assets.lockWithSignature(intent, signed(ALICE_KEY, intent));
        vm.prank(world);
        assets.cancel(FIRST_NONCE);
        Intents.Unlock memory release = Intents.Unlock(alice, world, id, FIRST_NONCE + 1, block.timestamp);
        signature = signed(WORLD_KEY, assets.hashUnlock(release));
        assets.unlockWithSignature(release, signature);
        measured("unlockWithSignature");
    }

    /// Permissions to spend, and spending.
    function test_spends() public {
        uint256 id = given(alice, 1_000, 0);
        vm.prank(alice);
        assets.cancel(FIRST_NONCE);
        Intents.Spend memory intent = spendOf(alice, id, 100, FIRST_NONCE + 1);
        bytes memory signature = signed(ALICE_KEY, assets.hashSpend(intent));
        assets.allowSpendWithSignature(intent, signature);
        measured("allowSpendWithSignature");
        vm.prank(world);
        assets.spend(alice, id, 10, world);
        measured("spend, first");
        vm.prank(world);
        assets.spend(alice, id, 10, world);
        measured("spend, warm");
        vm.prank(world);
        assets.spend(alice, id, 10, address(0));
        measured("spend, burning");
        vm.prank(alice);
        assets.revokeSpend(world, id);
        measured("revokeSpend");
    }

    /// What issuers do besides.
    function test_classes() public {
        Classes.Terms memory its = terms(0);
        (its.policy, its.delay) = (Classes.Policy.DELAYED, 1 days);
        (its.royaltyReceiver, its.royaltyBps) = (issuer, 500);
        vm.prank(issuer);
        uint256 slow = assets.createClass("slow", its, DIGEST);
        measured("createClass, with a royalty, without a cap");
        vm.prank(issuer);
        assets.setMinter(slow, world, 100);
        measured("setMinter");
        vm.prank(world);
        assets.mint(alice, slow, 10);
        measured("mint, by a minter, the class's first");
        vm.prank(alice);
        assets.burn(slow, 1);
        measured("burn, the class's first");
        vm.prank(issuer);
        assets.updateClass(slow, "new");
        measured("updateClass, proposing");
        vm.warp(block.timestamp + 1 days);
        assets.applyUpdate(slow);
        measured("applyUpdate");
        vm.prank(issuer);
        assets.updateClass(slow, "newer");
        vm.prank(issuer);
        assets.withdrawUpdate(slow);
        measured("withdrawUpdate");
        (its.policy, its.delay) = (Classes.Policy.ISSUER, 0);
        uint256 fast = madeBy(issuer, its);
        vm.prank(issuer);
        assets.updateClass(fast, "new");
        measured("updateClass, at once");
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
