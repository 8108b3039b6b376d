// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assets} from "../src/Assets.sol";
import {Intents} from "../src/Intents.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {BombWallet, JointWallet, Mute} from "./support/Wallets.sol";

/// @notice Accounts that delegate to a contract by EIP-7702.
contract DelegationTest is AssetsTest {
    uint256 private id;

    function setUp() public override {
        super.setUp();
        id = given(alice, 10, 0);
    }

    /// @dev Alice's account runs a wallet's code from the next call on, as her signed authorization says.
    function delegate(address to) private {
        vm.signAndAttachDelegation(to, ALICE_KEY);
        (bool success,) = alice.call("");
        yes(success || alice.code.length != 0);
        eq(alice.code, abi.encodePacked(hex"ef0100", to));
    }

    /// The key still signs, whatever the account runs: nothing, a wallet of others, or one that answers with a bomb.
    function test_the_key_signs() public {
        address[3] memory codes =
            [address(new Mute()), address(new JointWallet(bob, issuer)), address(new BombWallet())];
        for (uint256 i = 0; i < 3; ++i) {
            delegate(codes[i]);
            Intents.Transfer memory intent = transferOf(alice, bob, id, 1, i);
            assets.transferWithSignature(intent, signed(ALICE_KEY, intent));
            eq(assets.balanceOf(bob, id), i + 1);
        }
    }

    /// The wallet signs too, by its own rule; nobody else does.
    function test_the_wallet_signs() public {
        delegate(address(new JointWallet(bob, issuer)));
        Intents.Transfer memory intent = transferOf(alice, bob, id, 1, 1);
        bytes memory ofBob = signed(BOB_KEY, intent);
        refused(intent, ofBob, abi.encodeWithSelector(Intents.BadSignature.selector, alice));
        assets.transferWithSignature(intent, bytes.concat(ofBob, signed(0x155, intent)));
        eq(assets.balanceOf(bob, id), 1);
    }

    /// An account that gave its delegation up signs by its key alone.
    function test_undone() public {
        delegate(address(new JointWallet(bob, issuer)));
        vm.etch(alice, "");
        Intents.Transfer memory intent = transferOf(alice, bob, id, 1, 1);
        bytes memory joint = bytes.concat(signed(BOB_KEY, intent), signed(0x155, intent));
        refused(intent, joint, abi.encodeWithSelector(Intents.BadSignature.selector, alice));
        assets.transferWithSignature(intent, signed(ALICE_KEY, intent));
    }
}
