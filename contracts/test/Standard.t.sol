// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {IERC2981} from "@openzeppelin/contracts/interfaces/IERC2981.sol";
import {IERC1155} from "@openzeppelin/contracts/token/ERC1155/IERC1155.sol";
import {IERC1155MetadataURI} from "@openzeppelin/contracts/token/ERC1155/extensions/IERC1155MetadataURI.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {Liar, Mute, Refusing, Watching} from "./support/Wallets.sol";

/// @notice What ERC-1155 asks of any ledger, called by holders and operators themselves.
contract StandardTest is AssetsTest {
    function two(uint256 a, uint256 b) private pure returns (uint256[] memory list) {
        list = new uint256[](2);
        (list[0], list[1]) = (a, b);
    }

    /// It says which standards it keeps, and no others.
    function test_interfaces() public view {
        yes(assets.supportsInterface(type(IERC165).interfaceId));
        yes(assets.supportsInterface(type(IERC1155).interfaceId));
        yes(assets.supportsInterface(type(IERC1155MetadataURI).interfaceId));
        yes(assets.supportsInterface(type(IERC2981).interfaceId));
        yes(!assets.supportsInterface(0xffffffff) && !assets.supportsInterface(0x80ac58cd));
    }

    /// A holder moves what is theirs, and the event tells who did it.
    function testFuzz_transfer(uint128 held, uint128 amount) public {
        uint256 id = given(alice, held, 0);
        amount = held == type(uint128).max ? amount : amount % (held + 1);
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferSingle(alice, alice, bob, id, amount);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, amount, "");
        eq(assets.balanceOf(alice, id), held - amount);
        eq(assets.balanceOf(bob, id), amount);
    }

    /// More than the balance, and nobody as a receiver, are refused; so is one item of a batch too many.
    function test_refusals() public {
        uint256 id = given(alice, 10, 0);
        bytes memory lacking =
            abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 10, 11, id);
        vm.expectRevert(lacking);
        vm.prank(alice);
        assets.safeTransferFrom(alice, bob, id, 11, "");
        lacking = abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 4, 5, id);
        vm.expectRevert(lacking);
        vm.prank(alice);
        assets.safeBatchTransferFrom(alice, bob, two(id, id), two(6, 5), "");
        bytes memory nobody = abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidReceiver.selector, address(0));
        vm.expectRevert(nobody);
        vm.prank(alice);
        assets.safeTransferFrom(alice, address(0), id, 1, "");
        vm.expectRevert(nobody);
        vm.prank(alice);
        assets.safeBatchTransferFrom(alice, address(0), two(id, id), two(1, 1), "");
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidArrayLength.selector, 2, 1));
        vm.prank(alice);
        assets.safeBatchTransferFrom(alice, bob, two(id, id), new uint256[](1), "");
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidArrayLength.selector, 2, 1));
        assets.balanceOfBatch(new address[](1), two(id, id));
        eq(assets.balanceOf(alice, id), 10);
    }

    /// Only the holder and whom they approved may move items; the approval ends when it is taken back.
    function testFuzz_approval(address operator) public {
        vm.assume(operator != alice && operator != address(0));
        uint256 id = given(alice, 10, 0);
        bytes memory missing =
            abi.encodeWithSelector(IERC1155Errors.ERC1155MissingApprovalForAll.selector, operator, alice);
        vm.expectRevert(missing);
        vm.prank(operator);
        assets.safeTransferFrom(alice, bob, id, 0, "");
        vm.expectRevert(missing);
        vm.prank(operator);
        assets.safeBatchTransferFrom(alice, bob, two(id, id), two(0, 0), "");
        vm.expectEmit(true, true, true, true);
        emit IERC1155.ApprovalForAll(alice, operator, true);
        vm.prank(alice);
        assets.setApprovalForAll(operator, true);
        yes(assets.isApprovedForAll(alice, operator) && !assets.isApprovedForAll(operator, alice));
        vm.prank(operator);
        assets.safeTransferFrom(alice, bob, id, 1, "");
        vm.prank(operator);
        assets.safeBatchTransferFrom(alice, bob, two(id, id), two(1, 1), "");
        eq(assets.balanceOf(bob, id), 3);
        vm.prank(alice);
        assets.setApprovalForAll(operator, false);
        vm.expectRevert(missing);
        vm.prank(operator);
        assets.safeTransferFrom(alice, bob, id, 1, "");
    }

    /// Nobody can be approved, but not "nobody".
    function test_no_operator() public {
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidOperator.selector, address(0)));
        assets.setApprovalForAll(address(0), true);
    }

    /// Many balances in one question.
    function test_balances() public {
        (uint256 one, uint256 other) = (given(alice, 10, 0), given(bob, 5, 0));
        address[] memory owners = new address[](2);
        (owners[0], owners[1]) = (alice, bob);
        eq(abi.encode(assets.balanceOfBatch(owners, two(one, other))), abi.encode(two(10, 5)));
        eq(abi.encode(assets.balanceOfBatch(owners, two(other, one))), abi.encode(two(0, 0)));
    }

    /// A batch is one event and one question to the receiver, which learns all there is to know.
    function test_batch() public {
        (uint256 one, uint256 other) = (given(alice, 10, 0), given(alice, 5, 0));
        Watching receiver = new Watching();
        vm.expectEmit(true, true, true, true);
        emit IERC1155.TransferBatch(alice, alice, address(receiver), two(one, other), two(3, 5));
        vm.prank(alice);
        assets.safeBatchTransferFrom(alice, address(receiver), two(one, other), two(3, 5), "hello");
        eq(receiver.seen(), abi.encode(alice, alice, two(one, other), two(3, 5), "hello"));
        vm.prank(alice);
        assets.safeTransferFrom(alice, address(receiver), one, 2, "hello");
        eq(receiver.seen(), abi.encode(alice, alice, one, 2, "hello"));
        eq(assets.balanceOf(address(receiver), one), 5);
    }

    /// A contract that has no hook, refuses, or answers the wrong thing, gets nothing, singly or in a batch.
    function test_receivers() public {
        uint256 id = given(alice, 10, 0);
        address[3] memory receivers = [address(new Mute()), address(new Refusing()), address(new Liar())];
        for (uint256 i = 0; i < 3; ++i) {
            bytes memory reason = i == 1
                ? abi.encodeWithSelector(Refusing.NotWelcome.selector)
                : abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidReceiver.selector, receivers[i]);
            vm.expectRevert(reason);
            vm.prank(alice);
            assets.safeTransferFrom(alice, receivers[i], id, 1, "");
            vm.expectRevert(reason);
            vm.prank(alice);
            assets.safeBatchTransferFrom(alice, receivers[i], two(id, id), two(1, 1), "");
            eq(assets.balanceOf(receivers[i], id), 0);
        }
    }

    /// To oneself everything is checked and nothing changes.
    function test_to_oneself() public {
        uint256 id = given(alice, 10, 0);
        vm.prank(alice);
        assets.safeTransferFrom(alice, alice, id, 10, "");
        eq(assets.balanceOf(alice, id), 10);
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 10, 11, id));
        vm.prank(alice);
        assets.safeTransferFrom(alice, alice, id, 11, "");
    }
}
