// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {Assets} from "../src/Assets.sol";
import {Holdings} from "../src/Holdings.sol";
import {Intents} from "../src/Intents.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {Refusing, Watching} from "./support/Wallets.sol";

/// @notice Several classes by one signature.
contract BatchesTest is AssetsTest {
    function lists(uint256 count, uint256 id, uint256 amount)
        private
        pure
        returns (uint256[] memory ids, uint256[] memory amounts)
    {
        (ids, amounts) = (new uint256[](count), new uint256[](count));
        for (uint256 i = 0; i < count; ++i) {
            (ids[i], amounts[i]) = (id, amount);
        }
    }

    function refusedBatch(Intents.BatchTransfer memory intent, bytes memory reason) private {
        bytes memory signature = signed(ALICE_KEY, assets.hashBatchTransfer(intent));
        vm.expectRevert(reason);
        assets.batchTransferWithSignature(intent, signature);
        yes(!assets.isNonceUsed(alice, intent.nonce));
    }

    /// The digest is EIP-712's, spelled out by hand, for any number of items.
    function testFuzz_digest(uint8 count, uint256 id, uint256 amount) public view {
        (uint256[] memory ids, uint256[] memory amounts) = lists(count, id, amount);
        Intents.BatchTransfer memory intent = batchOf(alice, bob, ids, amounts, 3);
        bytes32 body = keccak256(
            abi.encode(
                keccak256(
                    "BatchTransfer(address from,address to,uint256[] ids,uint256[] amounts,uint256 nonce,uint256 deadline)"
                ),
                alice,
                bob,
                keccak256(abi.encodePacked(ids)),
                keccak256(abi.encodePacked(amounts)),
                intent.nonce,
                intent.deadline
            )
        );
        yes(assets.hashBatchTransfer(intent) == typed(body));
    }

    /// It moves all that it says, once, in one event, by whoever submits it; with one item or none as with many.
    function testFuzz_batch(uint8 count, address submitter) public {
        uint256 id = given(alice, 100, 0);
        (uint256[] memory ids, uint256[] memory amounts) = lists(count % 33, id, 2);
        Intents.BatchTransfer memory intent = batchOf(alice, bob, ids, amounts, 1);
        bytes memory signature = signed(ALICE_KEY, assets.hashBatchTransfer(intent));
        vm.expectEmit(true, true, true, true);
        emit Intents.NonceUsed(alice, 1);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferBatch(submitter, alice, bob, ids, amounts);
        vm.prank(submitter);
        assets.batchTransferWithSignature(intent, signature);
        eq(assets.balanceOf(bob, id), 2 * uint256(count % 33));
        vm.expectRevert(abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, 1));
        assets.batchTransferWithSignature(intent, signature);
    }

    /// All or nothing, item by item: what is locked or lacking, too many items, lists of two lengths, nobody as receiver.
    function test_refusals() public {
        uint256 id = given(alice, 10, 0);
        lock(alice, ALICE_KEY, world, id, 7, 99);
        (uint256[] memory ids, uint256[] memory amounts) = lists(2, id, 2);
        refusedBatch(
            batchOf(alice, bob, ids, amounts, 1), abi.encodeWithSelector(Holdings.ItemLocked.selector, alice, id, 1)
        );
        amounts[1] = 9;
        refusedBatch(
            batchOf(alice, bob, ids, amounts, 1),
            abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 8, 9, id)
        );
        amounts[1] = 1;
        refusedBatch(
            batchOf(alice, address(0), ids, amounts, 1),
            abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidReceiver.selector, address(0))
        );
        refusedBatch(
            batchOf(alice, bob, ids, new uint256[](3), 1),
            abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidArrayLength.selector, 2, 3)
        );
        (ids, amounts) = lists(33, id, 0);
        refusedBatch(batchOf(alice, bob, ids, amounts, 1), abi.encodeWithSelector(Assets.TooManyItems.selector, 33, 32));
        eq(assets.balanceOf(alice, id), 10);
    }

    /// Changing any field, any item, or the signer breaks the signature; too late is too late.
    function testFuzz_needs_its_signature(uint8 field, uint256 change) public {
        uint256 id = given(alice, 10, 0);
        (uint256[] memory ids, uint256[] memory amounts) = lists(2, id, 1);
        Intents.BatchTransfer memory intent = batchOf(alice, bob, ids, amounts, 1);
        bytes memory signature = signed(ALICE_KEY, assets.hashBatchTransfer(intent));
        vm.assume(change != 0);
        field %= 6;
        if (field == 0) intent.to = address(uint160(uint256(uint160(bob)) ^ (change % type(uint160).max + 1)));
        if (field == 1) intent.ids[change % 2] ^= change;
        if (field == 2) intent.amounts[change % 2] ^= change;
        if (field == 3) intent.nonce ^= change;
        if (field == 4) intent.deadline += change % (type(uint256).max - intent.deadline) + 1;
        if (field == 5) signature = signed(BOB_KEY, assets.hashBatchTransfer(intent));
        vm.expectRevert(abi.encodeWithSelector(Intents.BadSignature.selector, alice));
        assets.batchTransferWithSignature(intent, signature);
        intent = batchOf(alice, bob, ids, amounts, 1);
        vm.warp(intent.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(Intents.IntentExpired.selector, intent.deadline));
        assets.batchTransferWithSignature(intent, signature);
    }

    /// A contract is asked once, about all of it, and may refuse all of it.
    function test_receivers() public {
        uint256 id = given(alice, 10, 0);
        (uint256[] memory ids, uint256[] memory amounts) = lists(1, id, 3);
        Watching watching = new Watching();
        Intents.BatchTransfer memory intent = batchOf(alice, address(watching), ids, amounts, 1);
        assets.batchTransferWithSignature(intent, signed(ALICE_KEY, assets.hashBatchTransfer(intent)));
        eq(watching.seen(), abi.encode(address(this), alice, ids, amounts, ""));
        refusedBatch(
            batchOf(alice, address(new Refusing()), ids, amounts, 2),
            abi.encodeWithSelector(Refusing.NotWelcome.selector)
        );
    }
}
