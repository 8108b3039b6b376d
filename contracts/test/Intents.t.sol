// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {Assets} from "../src/Assets.sol";
import {Intents} from "../src/Intents.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {BombWallet, JointWallet, Reentering} from "./support/Wallets.sol";

contract IntentsTest is AssetsTest {
    /// A signed transfer moves what it says, once, and says so.
    function testFuzz_transfer(uint128 held, uint128 amount, uint256 nonce, address submitter) public {
        amount = uint128(amount % (uint256(held) + 1));
        uint256 id = given(alice, held, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, amount, nonce);
        bytes memory signature = signed(ALICE_KEY, intent);
        yes(!assets.isNonceUsed(alice, nonce));
        vm.expectEmit(true, true, true, true);
        emit Intents.NonceUsed(alice, nonce);
        vm.prank(submitter);
        assets.transferWithSignature(intent, signature);
        eq(assets.balanceOf(alice, id), held - amount);
        eq(assets.balanceOf(bob, id), amount);
        yes(assets.isNonceUsed(alice, nonce));
        refused(intent, signature, abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, nonce));
    }

    /// The digest is EIP-712's, spelled out by hand.
    function test_digest() public view {
        Intents.Transfer memory intent = transferOf(alice, bob, 1, 2, 3);
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("p2pos"),
                keccak256("1"),
                block.chainid,
                address(assets)
            )
        );
        bytes32 body = keccak256(
            abi.encode(
                keccak256("Transfer(address from,address to,uint256 id,uint256 amount,uint256 nonce,uint256 deadline)"),
                intent
            )
        );
        yes(assets.hashTransfer(intent) == keccak256(abi.encodePacked(hex"1901", domain, body)));
    }

    /// Changing any field of a signed transfer breaks the signature.
    function testFuzz_tampered(uint8 field, uint256 change) public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 5, 1);
        bytes memory signature = signed(ALICE_KEY, intent);
        vm.assume(change != 0);
        field %= 5;
        if (field == 0) intent.to = address(uint160(uint256(uint160(intent.to)) ^ (change % type(uint160).max + 1)));
        if (field == 1) intent.id ^= change;
        if (field == 2) intent.amount ^= change;
        if (field == 3) intent.nonce ^= change;
        if (field == 4) intent.deadline += change % (type(uint256).max - intent.deadline) + 1;
        refused(intent, signature, abi.encodeWithSelector(Intents.BadSignature.selector, alice));
        yes(!assets.isNonceUsed(alice, 1));
        eq(assets.balanceOf(alice, id), 10);
    }

    /// Another's signature doesn't do, nor a malformed one, nor the zero address's.
    function testFuzz_wrong_signer(uint256 key, bytes calldata junk) public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 5, 1);
        bytes memory reason = abi.encodeWithSelector(Intents.BadSignature.selector, alice);
        key = key % (CURVE_ORDER - 1) + 1;
        vm.assume(key != ALICE_KEY);
        refused(intent, signed(key, intent), reason);
        refused(intent, junk, reason);
        refused(intent, "", reason);
        intent.from = address(0);
        refused(intent, junk, abi.encodeWithSelector(Intents.BadSignature.selector, address(0)));
    }

    /// The twin of a signature, with the other s, is refused.
    function test_malleable_signature() public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 5, 1);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(ALICE_KEY, assets.hashTransfer(intent));
        bytes memory twin = abi.encodePacked(r, bytes32(CURVE_ORDER - uint256(s)), v == 27 ? uint8(28) : uint8(27));
        refused(intent, twin, abi.encodeWithSelector(Intents.BadSignature.selector, alice));
    }

    /// An intent is good through its deadline and not a second longer.
    function test_deadline() public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory first = transferOf(alice, bob, id, 5, 1);
        Intents.Transfer memory second = transferOf(alice, bob, id, 5, 2);
        (bytes memory one, bytes memory two) = (signed(ALICE_KEY, first), signed(ALICE_KEY, second));
        vm.warp(first.deadline);
        assets.transferWithSignature(first, one);
        vm.warp(first.deadline + 1);
        refused(second, two, abi.encodeWithSelector(Intents.IntentExpired.selector, second.deadline));
    }

    /// A signature for one chain or one contract is worth nothing at another.
    function test_other_chain_and_contract() public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 5, 1);
        bytes memory signature = signed(ALICE_KEY, intent);
        bytes memory reason = abi.encodeWithSelector(Intents.BadSignature.selector, alice);
        Assets other = new Assets();
        vm.expectRevert(reason);
        other.transferWithSignature(intent, signature);
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        refused(intent, signature, reason);
        vm.chainId(here);
        assets.transferWithSignature(intent, signature);
    }

    /// A transfer above the balance, or to nobody, is refused by the standard's own errors.
    function test_standard_refusals() public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 11, 1);
        refused(
            intent,
            signed(ALICE_KEY, intent),
            abi.encodeWithSelector(IERC1155Errors.ERC1155InsufficientBalance.selector, alice, 10, 11, id)
        );
        intent = transferOf(alice, address(0), id, 1, 1);
        refused(
            intent,
            signed(ALICE_KEY, intent),
            abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidReceiver.selector, address(0))
        );
        yes(!assets.isNonceUsed(alice, 1));
    }

    /// A cancelled nonce is worth nothing, and only its owner's.
    function testFuzz_cancel(uint256 nonce) public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, bob, id, 1, nonce);
        bytes memory signature = signed(ALICE_KEY, intent);
        vm.expectEmit(true, true, true, true);
        emit Intents.NonceCancelled(alice, nonce);
        vm.prank(alice);
        assets.cancel(nonce);
        yes(assets.isNonceUsed(alice, nonce) && !assets.isNonceUsed(bob, nonce));
        bytes memory reason = abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, nonce);
        refused(intent, signature, reason);
        vm.expectRevert(reason);
        vm.prank(alice);
        assets.cancel(nonce);
    }

    /// Who has no gas cancels by a transfer of nothing to themselves with the same nonce.
    function test_cancel_by_signature() public {
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory regretted = transferOf(alice, bob, id, 1, 7);
        Intents.Transfer memory nothing = transferOf(alice, alice, id, 0, 7);
        bytes memory signature = signed(ALICE_KEY, regretted);
        assets.transferWithSignature(nothing, signed(ALICE_KEY, nothing));
        refused(regretted, signature, abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, 7));
    }

    /// Nonces don't disturb one another: not even those that differ in a single bit, within a word of the bitmap or across.
    function testFuzz_nonces_are_apart(uint256 nonce) public {
        vm.prank(alice);
        assets.cancel(nonce);
        yes(assets.isNonceUsed(alice, nonce));
        for (uint256 bit = 0; bit < 256; ++bit) {
            yes(!assets.isNonceUsed(alice, nonce ^ (1 << bit)));
        }
    }

    /// A wallet contract signs by its own rule (ERC-1271), with a signature longer than 65 bytes.
    function test_contract_wallet() public {
        JointWallet wallet = new JointWallet(alice, bob);
        uint256 id = given(address(wallet), 10, 0);
        Intents.Transfer memory intent = transferOf(address(wallet), bob, id, 4, 1);
        bytes memory one = signed(ALICE_KEY, intent);
        bytes memory both = bytes.concat(one, signed(BOB_KEY, intent));
        refused(intent, one, abi.encodeWithSelector(Intents.BadSignature.selector, address(wallet)));
        assets.transferWithSignature(intent, both);
        eq(assets.balanceOf(bob, id), 4);
        refused(intent, both, abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, address(wallet), 1));
    }

    /// A wallet contract that answers with a megabyte is a bad signature, cheaply.
    function test_bomb_wallet() public {
        BombWallet wallet = new BombWallet();
        uint256 id = given(address(wallet), 1, 0);
        Intents.Transfer memory intent = transferOf(address(wallet), bob, id, 1, 1);
        refused(intent, "", abi.encodeWithSelector(Intents.BadSignature.selector, address(wallet)));
    }

    /// A receiver that submits the same intent again from its hook gets nothing more.
    function test_transfer_reentered() public {
        Reentering receiver = new Reentering(assets);
        uint256 id = given(alice, 10, 0);
        Intents.Transfer memory intent = transferOf(alice, address(receiver), id, 4, 1);
        bytes memory signature = signed(ALICE_KEY, intent);
        receiver.prepare(abi.encodeCall(assets.transferWithSignature, (intent, signature)));
        assets.transferWithSignature(intent, signature);
        yes(receiver.tried() && !receiver.succeeded());
        eq(receiver.answer(), abi.encodeWithSelector(Intents.NonceAlreadyUsed.selector, alice, 1));
        eq(assets.balanceOf(address(receiver), id), 4);
    }

    /// What no type allows has no hash: an address, or a time, of more bits than it has.
    function testFuzz_no_hash(uint256 word) public view {
        bytes4[4] memory functions = [
            assets.hashTransfer.selector,
            assets.hashLock.selector,
            assets.hashUnlock.selector,
            assets.hashSpend.selector
        ];
        uint256[4] memory words = [uint256(6), 7, 5, 7];
        for (uint256 i = 0; i < 4; ++i) {
            for (uint256 field = 0; field < words[i]; ++field) {
                bytes memory asked = bytes.concat(functions[i], new bytes(32 * words[i]));
                uint256 at = 36 + 32 * field;
                uint256 value = field < 2 ? word | 1 << 160 : word | 1 << 64;
                assembly ("memory-safe") {
                    mstore(add(asked, at), value)
                }
                (bool success,) = address(assets).staticcall(asked);
                bool narrow = field < 2 || (words[i] == 7 && field == 4);
                yes(success == !narrow);
            }
        }
    }
}
