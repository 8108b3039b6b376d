// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {Assets} from "../src/Assets.sol";
import {Holdings} from "../src/Holdings.sol";
import {Intents} from "../src/Intents.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {JointWallet, Reentering, Refusing, Watching} from "./support/Wallets.sol";

contract SwapsTest is AssetsTest {
    uint256 private lantern;
    uint256 private gold;

    function setUp() public override {
        super.setUp();
        (lantern, gold) = (given(alice, 10, 0), given(bob, 1_000, 0));
    }

    function both(Intents.Swap memory intent) private view returns (bytes memory, bytes memory) {
        bytes32 hash = assets.hashSwap(intent);
        return (signed(ALICE_KEY, hash), signed(BOB_KEY, hash));
    }

    function swap(Intents.Swap memory intent) private {
        (bytes memory one, bytes memory two) = both(intent);
        assets.swapWithSignatures(intent, one, two);
    }

    function refusedSwap(Intents.Swap memory intent, bytes memory reason) private {
        (bytes memory one, bytes memory two) = both(intent);
        vm.expectRevert(reason);
        assets.swapWithSignatures(intent, one, two);
        yes(!assets.isNonceUsed(intent.first, intent.firstNonce));
        yes(!assets.isNonceUsed(intent.second, intent.secondNonce));
    }

    function many(uint256 id, uint256 count) private pure returns (Intents.Item[] memory list) {
        list = new Intents.Item[](count);
        for (uint256 i = 0; i < count; ++i) {
            list[i] = Intents.Item(id, 1);
        }
    }

    function hashed(Intents.Item[] memory list) private pure returns (bytes32) {
        bytes memory parts;
        for (uint256 i = 0; i < list.length; ++i) {
            parts = bytes.concat(
                parts, keccak256(abi.encode(keccak256("Item(uint256 id,uint256 amount)"), list[i].id, list[i].amount))
            );
        }
        return keccak256(parts);
    }

    /// The digest is EIP-712's, spelled out by hand, for any number of items.
    function testFuzz_digest(uint8 first, uint8 second, uint256 nonce) public view {
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 5, nonce);
        (intent.firstGives, intent.secondGives) = (many(lantern, first % 33), many(gold, second % 33));
        intent.secondNonce = ~nonce;
        bytes32 body = keccak256(
            abi.encode(
                keccak256(
                    "Swap(address first,address second,Item[] firstGives,Item[] secondGives,uint256 firstNonce,uint256 secondNonce,uint256 deadline)Item(uint256 id,uint256 amount)"
                ),
                intent.first,
                intent.second,
                hashed(intent.firstGives),
                hashed(intent.secondGives),
                intent.firstNonce,
                intent.secondNonce,
                intent.deadline
            )
        );
        yes(assets.hashSwap(intent) == typed(body));
    }

    /// One item for some currency: both move, both nonces are used, and the events come in their order.
    function testFuzz_swap(uint256 price, address anyone) public {
        price %= 1_001;
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, price, 7);
        intent.secondNonce = 8;
        (bytes memory one, bytes memory two) = both(intent);
        vm.expectEmit(true, true, true, true);
        emit Intents.NonceUsed(alice, 7);
        vm.expectEmit(true, true, true, true);
        emit Intents.NonceUsed(bob, 8);
        vm.expectEmit(true, true, true, true);
        emit Assets.Swapped(alice, bob, 7, 8);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(anyone, alice, bob, lantern, 1);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(anyone, bob, alice, gold, price);
        vm.prank(anyone);
        assets.swapWithSignatures(intent, one, two);
        eq(assets.balanceOf(bob, lantern), 1);
        eq(assets.balanceOf(alice, gold), price);
        yes(assets.isNonceUsed(alice, 7) && assets.isNonceUsed(bob, 8) && !assets.isNonceUsed(alice, 8));
        vm.expectRevert(abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, 7));
        assets.swapWithSignatures(intent, one, two);
        (intent.firstNonce, intent.secondNonce) = (9, 8);
        (one, two) = both(intent);
        vm.expectRevert(abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, bob, 8));
        assets.swapWithSignatures(intent, one, two);
        yes(!assets.isNonceUsed(alice, 9));
    }

    /// Many items a side make one event a side; a side of nothing makes none.
    function test_many() public {
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        intent.firstGives = many(lantern, 3);
        intent.secondGives = new Intents.Item[](0);
        (uint256[] memory ids, uint256[] memory amounts) = (new uint256[](3), new uint256[](3));
        for (uint256 i = 0; i < 3; ++i) {
            (ids[i], amounts[i]) = (lantern, 1);
        }
        (bytes memory one, bytes memory two) = both(intent);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferBatch(address(this), alice, bob, ids, amounts);
        vm.recordLogs();
        assets.swapWithSignatures(intent, one, two);
        eq(vm.getRecordedLogs().length, 4);
        eq(assets.balanceOf(bob, lantern), 3);
        intent = swapOf(alice, bob, lantern, 1, gold, 5, 2);
        (intent.firstGives, intent.secondGives) = (new Intents.Item[](0), many(gold, 32));
        swap(intent);
        eq(assets.balanceOf(alice, gold), 32);
    }

    /// Who gets nothing is not asked.
    function test_gift() public {
        vm.etch(alice, abi.encodePacked(hex"ef0100", new Refusing()));
        Assets.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        intent.secondGives = new Assets.Item[](0);
        swap(intent);
        eq(assets.balanceOf(bob, lantern), 1);
    }

    /// A swap is two people's and something is given; a side has at most 32 items.
    function test_senseless() public {
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        (intent.firstGives, intent.secondGives) = (new Intents.Item[](0), new Intents.Item[](0));
        refusedSwap(intent, abi.encodeWithSelector(Assets.EmptySwap.selector));
        intent = swapOf(alice, alice, lantern, 1, lantern, 1, 1);
        intent.secondNonce = 2;
        refusedSwap(intent, abi.encodeWithSelector(Assets.EmptySwap.selector));
        intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        intent.firstGives = many(lantern, 33);
        refusedSwap(intent, abi.encodeWithSelector(Assets.TooManyItems.selector, 33, 32));
        intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        intent.secondGives = many(gold, 33);
        refusedSwap(intent, abi.encodeWithSelector(Assets.TooManyItems.selector, 33, 32));
    }

    /// All or nothing: where one side lacks an item, or has it locked, nothing moves.
    function test_all_or_nothing() public {
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 1_001, 1);
        refusedSwap(
            intent, abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, bob, 1_000, 1_001, gold)
        );
        lock(bob, BOB_KEY, world, gold, 996, 99);
        intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        refusedSwap(intent, abi.encodeWithSelector(Holdings.ItemLocked.selector, bob, gold, 4));
        intent.firstGives = many(lantern, 11);
        refusedSwap(
            intent, abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 0, 1, lantern)
        );
        eq(assets.balanceOf(alice, lantern), 10);
        eq(assets.balanceOf(bob, lantern), 0);
    }

    /// The first gives first: the second may give back what it just got, and no more.
    function test_given_back() public {
        swap(swapOf(alice, bob, lantern, 4, lantern, 3, 1));
        eq(assets.balanceOf(bob, lantern), 1);
        refusedSwap(
            swapOf(alice, bob, lantern, 4, lantern, 6, 2),
            abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, bob, 5, 6, lantern)
        );
    }

    /// Both sign the same words: changing any, or leaving one signature out, breaks it.
    function testFuzz_needs_both_signatures(uint8 field, uint256 change) public {
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        (bytes memory one, bytes memory two) = both(intent);
        vm.assume(change != 0);
        field %= 10;
        address signer = field == 6 || field == 8 ? bob : alice;
        if (field == 0) intent.firstGives[0].id ^= change;
        if (field == 1) intent.firstGives[0].amount ^= change;
        if (field == 2) intent.secondGives[0].id ^= change;
        if (field == 3) intent.secondGives[0].amount ^= change;
        if (field == 4) intent.firstNonce ^= change;
        if (field == 5) intent.secondNonce ^= change;
        if (field == 6) two = one;
        if (field == 7) one = two;
        if (field == 8) two = "";
        if (field == 9) intent.firstGives = many(lantern, change % 31 + 2);
        vm.expectRevert(abi.encodeWithSelector(Intents.BadSignature.selector, signer));
        assets.swapWithSignatures(intent, one, two);
    }

    /// Neither signature can stand on the other side.
    function test_sides_are_not_exchanged() public {
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        (bytes memory one, bytes memory two) = both(intent);
        (intent.first, intent.second) = (bob, alice);
        vm.expectRevert(abi.encodeWithSelector(Intents.BadSignature.selector, bob));
        assets.swapWithSignatures(intent, two, one);
    }

    /// A swap expires, and either side can cancel it.
    function test_over() public {
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        vm.prank(bob);
        assets.cancel(1);
        (bytes memory one, bytes memory two) = both(intent);
        vm.expectRevert(abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, bob, 1));
        assets.swapWithSignatures(intent, one, two);
        vm.warp(intent.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(Intents.IntentExpired.selector, intent.deadline));
        assets.swapWithSignatures(intent, one, two);
    }

    /// Receivers that are contracts are asked after both sides have moved, and either can refuse it all.
    function test_receivers() public {
        Watching watching = new Watching();
        Refusing refusing = new Refusing();
        Reentering receiver = new Reentering(assets);
        JointWallet wallet = new JointWallet(alice, bob);
        vm.prank(bob);
        assets.safeTransferFrom(bob, address(wallet), gold, 100, "");
        Intents.Swap memory intent = swapOf(alice, address(wallet), lantern, 1, gold, 100, 1);
        bytes32 hash = assets.hashSwap(intent);
        assets.swapWithSignatures(
            intent, signed(ALICE_KEY, hash), bytes.concat(signed(ALICE_KEY, hash), signed(BOB_KEY, hash))
        );
        eq(assets.balanceOf(address(wallet), lantern), 1);
        // a delegated account hears what it got, in a batch, with the submitter as operator
        vm.etch(alice, abi.encodePacked(hex"ef0100", watching));
        intent = swapOf(alice, bob, lantern, 1, gold, 5, 2);
        intent.secondGives = many(gold, 2);
        swap(intent);
        (uint256[] memory ids, uint256[] memory amounts) = (new uint256[](2), new uint256[](2));
        (ids[0], ids[1], amounts[0], amounts[1]) = (gold, gold, 1, 1);
        eq(Watching(alice).seen(), abi.encode(address(this), bob, ids, amounts, ""));
        swap(swapOf(alice, bob, lantern, 1, gold, 5, 3));
        eq(Watching(alice).seen(), abi.encode(address(this), bob, gold, 5, ""));
        vm.etch(alice, abi.encodePacked(hex"ef0100", refusing));
        refusedSwap(swapOf(alice, bob, lantern, 1, gold, 5, 4), abi.encodeWithSelector(Refusing.NotWelcome.selector));
        yes(!receiver.tried());
    }

    /// A receiver that submits the same swap again from its hook gets nothing more.
    function test_reentered() public {
        Reentering receiver = new Reentering(assets);
        Intents.Swap memory intent = swapOf(alice, bob, lantern, 1, gold, 5, 1);
        (bytes memory one, bytes memory two) = both(intent);
        vm.etch(bob, address(receiver).code);
        Reentering(bob).prepare(abi.encodeCall(assets.swapWithSignatures, (intent, one, two)));
        assets.swapWithSignatures(intent, one, two);
        yes(Reentering(bob).tried() && !Reentering(bob).succeeded());
        eq(Reentering(bob).answer(), abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, 1));
        eq(assets.balanceOf(bob, lantern), 1);
    }
}
