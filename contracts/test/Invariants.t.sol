// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Classes} from "../src/Classes.sol";
import {AssetsTest} from "./support/AssetsTest.sol";
import {Travellers} from "./support/Travellers.sol";

/// @notice What holds after any sequence of actions by anyone.
contract InvariantsTest is AssetsTest {
    Travellers private handler;

    function setUp() public override {
        super.setUp();
        handler = new Travellers(assets);
    }

    /// @dev Where Foundry learns that it shall call the handler alone.
    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    /// All of them, in one campaign: each would otherwise play the same sequences for itself.
    function invariant_of_the_whole() public view {
        for (uint256 c = 0; c < 3; ++c) {
            supplyIsConserved(handler.ids(c));
        }
        for (uint256 i = 0; i < 3; ++i) {
            address owner = handler.travellers(i);
            lockedIsThere(owner, handler.ids(0));
            lockedIsThere(owner, handler.ids(1));
            boundStays(owner, handler.ids(2));
            for (uint256 c = 0; c < 3; ++c) {
                spentWithinAllowance(owner, handler.ids(c), handler.worlds(0));
                spentWithinAllowance(owner, handler.ids(c), handler.worlds(1));
            }
        }
        // no action moved what was locked, and nothing took effect without its nonce; no nonce counted twice
        yes(!handler.broken());
        yes(handler.mostUses() <= 1);
    }

    /// @dev Nothing comes into being but by minting or ceases to be but by burning: what there is is what its holders
    /// have. The cap is never passed.
    function supplyIsConserved(uint256 id) private view {
        uint256 held;
        for (uint256 i = 0; i < 3; ++i) {
            held += assets.balanceOf(handler.travellers(i), id);
        }
        Classes.ClassInfo memory class = assets.classOf(id);
        eq(class.minted, handler.minted(id));
        eq(class.burned, handler.burned(id));
        eq(held, class.minted - class.burned);
        eq(held, assets.totalSupply(id));
        yes(class.cap == 0 || class.minted <= class.cap);
    }

    /// @dev What is locked is there, and is the sum of its locks.
    function lockedIsThere(address owner, uint256 id) private view {
        (uint256 first,) = assets.lockOf(owner, id, handler.worlds(0));
        (uint256 second,) = assets.lockOf(owner, id, handler.worlds(1));
        eq(assets.lockedOf(owner, id), first + second);
        yes(assets.balanceOf(owner, id) >= first + second);
    }

    /// @dev Of a soulbound class everyone has what they were given, less what they burned, and all of it is locked.
    function boundStays(address owner, uint256 id) private view {
        uint256 balance = assets.balanceOf(owner, id);
        eq(balance, handler.given(id, owner) - handler.destroyed(id, owner));
        eq(assets.lockedOf(owner, id), balance);
    }

    /// @dev A world has taken no more than it was allowed, and what is left is the rest.
    function spentWithinAllowance(address owner, uint256 id, address world) private view {
        (uint256 left,) = assets.spendAllowance(owner, id, world);
        eq(left + handler.taken(owner, id, world), handler.allowed(owner, id, world));
    }
}
