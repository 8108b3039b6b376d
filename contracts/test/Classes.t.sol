// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1155Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {Assets} from "../src/Assets.sol";
import {Classes} from "../src/Classes.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {JointWallet, Mute, Reentering, Refusing} from "./support/Wallets.sol";

contract ClassesTest is AssetsTest {
    /// A class's id follows from its issuer and salt, and the class is what its issuer said.
    function testFuzz_class(
        address maker,
        bytes32 salt,
        bytes32 digest,
        uint128 cap,
        bool soulbound,
        uint8 policy,
        uint32 delay,
        address receiver,
        uint16 bps
    ) public {
        vm.assume(maker != address(0) && receiver != address(0));
        policy %= 3;
        delay = policy == 2 ? delay % 365 days + 1 : 0;
        bps %= 5_001;
        if (bps == 0) receiver = address(0);
        Classes.Terms memory its = Classes.Terms(cap, soulbound, Classes.Policy(policy), delay, receiver, bps);
        uint256 expected = uint256(keccak256(abi.encode(maker, salt)));
        vm.expectEmit(true, true, true, true);
        emit Classes.ClassCreated(expected, maker, cap, digest, soulbound, policy, delay, receiver, bps);
        vm.prank(maker);
        eq(assets.createClass(salt, its, digest), expected);
        Classes.ClassInfo memory told = Classes.ClassInfo({
            issuer: maker,
            cap: cap,
            minted: 0,
            burned: 0,
            digest: digest,
            version: 1,
            soulbound: soulbound,
            policy: Classes.Policy(policy),
            delay: delay,
            royaltyReceiver: receiver,
            royaltyBps: bps
        });
        eq(abi.encode(assets.classOf(expected)), abi.encode(told));
        eq(assets.totalSupply(expected), 0);
    }

    /// A salt makes one class for one issuer; another issuer's is another class.
    function test_class_twice() public {
        vm.prank(issuer);
        uint256 id = assets.createClass("salt", terms(1), DIGEST);
        vm.prank(alice);
        yes(assets.createClass("salt", terms(1), DIGEST) != id);
        vm.expectRevert(abi.encodeWithSelector(Classes.ClassExists.selector, id));
        vm.prank(issuer);
        assets.createClass("salt", terms(2), DIGEST);
    }

    /// What does not exist has no issuer, can't be minted and has no address.
    function test_unknown_class() public {
        Classes.ClassInfo memory nothing;
        eq(abi.encode(assets.classOf(7)), abi.encode(nothing));
        vm.expectRevert(abi.encodeWithSelector(Classes.UnknownClass.selector, 7));
        assets.mint(alice, 7, 1);
        vm.expectRevert(abi.encodeWithSelector(Classes.UnknownClass.selector, 7));
        assets.uri(7);
    }

    /// Nobody but the issuer mints, where no minter was set; not even nothing.
    function testFuzz_mint_is_the_issuers(address caller, uint256 amount) public {
        uint256 id = given(alice, 1, 0);
        vm.assume(caller != issuer);
        bytes memory reason = abi.encodeWithSelector(Classes.NotMinter.selector, id, caller, 0);
        vm.expectRevert(reason);
        vm.prank(caller);
        assets.mint(alice, id, amount);
        vm.expectRevert(reason);
        vm.prank(caller);
        assets.mint(alice, id, 0);
    }

    /// Minting stops at the cap, whatever the amounts.
    function testFuzz_cap(uint128 cap, uint256 first, uint256 second) public {
        vm.assume(cap != 0);
        first %= uint256(cap) + 1;
        uint256 id = given(alice, first, cap);
        uint256 left = cap - first;
        if (second > left) {
            uint256 wanted = second > type(uint256).max - first ? type(uint256).max : first + second;
            vm.expectRevert(abi.encodeWithSelector(Classes.CapExceeded.selector, id, cap, wanted));
        }
        vm.prank(issuer);
        assets.mint(bob, id, second);
        uint256 supply = assets.totalSupply(id);
        eq(supply, assets.balanceOf(alice, id) + assets.balanceOf(bob, id));
        yes(supply <= cap);
    }

    /// A class without a cap ends where its counter does.
    function test_no_cap_ends_at_the_counter() public {
        uint256 id = given(alice, type(uint128).max, 0);
        vm.expectRevert(
            abi.encodeWithSelector(Classes.CapExceeded.selector, id, type(uint128).max, uint256(type(uint128).max) + 1)
        );
        vm.prank(issuer);
        assets.mint(alice, id, 1);
    }

    /// A contract gets new units only if it accepts them.
    function test_mint_to_contracts() public {
        uint256 id = given(address(new JointWallet(alice, bob)), 1, 5);
        address mute = address(new Mute());
        vm.expectRevert(abi.encodeWithSelector(IERC1155Errors.ERC1155InvalidReceiver.selector, mute));
        vm.prank(issuer);
        assets.mint(mute, id, 1);
        address refusing = address(new Refusing());
        vm.expectRevert(abi.encodeWithSelector(Refusing.NotWelcome.selector));
        vm.prank(issuer);
        assets.mint(refusing, id, 1);
        uint256 supply = assets.totalSupply(id);
        eq(supply, 1);
    }

    /// An issuer whose hook mints again on receipt is still held to the cap.
    function test_mint_reentered() public {
        Reentering maker = new Reentering(assets);
        vm.prank(address(maker));
        uint256 id = assets.createClass("salt", terms(3), DIGEST);
        maker.prepare(abi.encodeCall(assets.mint, (address(maker), id, 2)));
        vm.prank(address(maker));
        assets.mint(address(maker), id, 2);
        yes(maker.tried() && !maker.succeeded());
        eq(maker.answer(), abi.encodeWithSelector(Classes.CapExceeded.selector, id, uint128(3), uint256(4)));
        eq(assets.balanceOf(address(maker), id), 2);
    }

    /// A class's address is the CID of its descriptor: CIDv1, raw, sha2-256, in base 16.
    function test_uri() public {
        vm.prank(issuer);
        uint256 id = assets.createClass("salt", terms(1), bytes32(uint256(0xabc)));
        eq(bytes(assets.uri(id)), "ipfs://f015512200000000000000000000000000000000000000000000000000000000000000abc");
    }
}
