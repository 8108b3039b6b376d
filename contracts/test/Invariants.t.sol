// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

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

    /// Nothing comes into being but by minting, and nothing is lost: a class's supply is what its holders have.
    function invariant_supply_is_conserved() public view {
        for (uint256 c = 0; c < 2; ++c) {
            uint256 id = handler.ids(c);
            uint256 held;
            for (uint256 i = 0; i < 3; ++i) {
                held += assets.balanceOf(handler.travellers(i), id);
            }
            (uint128 cap, uint256 supply) = (assets.classOf(id).cap, assets.totalSupply(id));
            eq(supply, held);
            eq(supply, handler.minted(id));
            yes(cap == 0 || supply <= cap);
        }
    }

    /// What is locked is there, is the sum of its locks, and no action moved any of it.
    function invariant_locked_never_moves() public view {
        yes(!handler.broken());
        for (uint256 c = 0; c < 2; ++c) {
            for (uint256 i = 0; i < 3; ++i) {
                (uint256 id, address owner) = (handler.ids(c), handler.travellers(i));
                (uint256 first,) = assets.lockOf(owner, id, handler.worlds(0));
                (uint256 second,) = assets.lockOf(owner, id, handler.worlds(1));
                eq(assets.lockedOf(owner, id), first + second);
                yes(assets.balanceOf(owner, id) >= first + second);
            }
        }
    }

    /// No nonce counted twice, by whatever way it was used.
    function invariant_nonces_count_once() public view {
        yes(handler.mostUses() <= 1);
    }
}
