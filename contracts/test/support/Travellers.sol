// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assets} from "../../src/Assets.sol";
import {Intents} from "../../src/Intents.sol";
import {Classes} from "../../src/Classes.sol";
import {Vm} from "./Vm.sol";

/// @notice Who acts in the invariant tests: three accounts with keys that mint, send, sign, relay, replay, cancel, lock,
/// release and wait, in any order and with any arguments, sensible or not. It keeps books of its own to compare with.
contract Travellers {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant CAP = 1_000;
    /// @dev Few nonces, so that they collide; on both sides of a word's edge.
    uint256 private constant FIRST_NONCE = 240;
    uint256 private constant NONCES = 32;
    uint256 private constant RELAY_GAS = 150_000;

    Assets public immutable assets;
    /// @notice One class with a cap, one without.
    uint256[2] public ids;
    address[3] public travellers;
    address[2] public worlds;
    /// @notice How often a nonce took effect.
    mapping(address owner => mapping(uint256 nonce => uint256 times)) public uses;
    /// @notice What each class's mints came to.
    mapping(uint256 id => uint256 amount) public minted;
    /// @notice A movement that a lock should have stopped, or an intent that took effect without its nonce.
    bool public broken;

    /// @dev The last few intents, for replays.
    Intents.Transfer[] private seen;
    bytes[] private signatures;

    constructor(Assets assets_) {
        assets = assets_;
        for (uint256 i = 0; i < 3; ++i) {
            travellers[i] = vm.addr(key(i));
        }
        worlds = [vm.addr(0x301), vm.addr(0x302)];
        ids[0] = assets.createClass("capped", Classes.Terms(uint128(CAP), false, Classes.Policy.FROZEN, 0, address(0), 0), 0);
        ids[1] = assets.createClass("currency", Classes.Terms(0, false, Classes.Policy.FROZEN, 0, address(0), 0), 0);
        for (uint256 i = 0; i < 3; ++i) {
            assets.mint(travellers[i], ids[0], CAP / 5);
            assets.mint(travellers[i], ids[1], CAP * 5);
        }
        (minted[ids[0]], minted[ids[1]]) = (CAP / 5 * 3, CAP * 15);
    }

    function key(uint256 who) private pure returns (uint256) {
        return 0xA110 + who % 3;
    }

    /// @dev Run by every action: what was locked before is still there after, whatever the action was.
    modifier lockedStays() {
        uint256[6] memory balances;
        uint256[6] memory locks;
        for (uint256 i = 0; i < 6; ++i) {
            balances[i] = assets.balanceOf(travellers[i % 3], ids[i / 3]);
            locks[i] = assets.lockedOf(travellers[i % 3], ids[i / 3]);
        }
        _;
        for (uint256 i = 0; i < 6; ++i) {
            uint256 now_ = assets.balanceOf(travellers[i % 3], ids[i / 3]);
            if (now_ < balances[i] && now_ < locks[i]) broken = true;
        }
    }

    function mint(uint256 to, uint256 which, uint256 amount) external lockedStays {
        uint256 id = ids[which % 2];
        amount %= CAP / 2;
        assets.mint(travellers[to % 3], id, amount);
        minted[id] += amount;
    }

    function send(uint256 from, uint256 to, uint256 which, uint256 amount) external lockedStays {
        vm.prank(travellers[from % 3]);
        assets.safeTransferFrom(travellers[from % 3], travellers[to % 3], ids[which % 2], amount % CAP, "");
    }

    function sendBatch(uint256 from, uint256 to, uint256 first, uint256 second, uint256 amount) external lockedStays {
        (uint256[] memory batch, uint256[] memory amounts) = (new uint256[](2), new uint256[](2));
        (batch[0], batch[1]) = (ids[first % 2], ids[second % 2]);
        (amounts[0], amounts[1]) = (amount % CAP, (amount >> 128) % CAP);
        vm.prank(travellers[from % 3]);
        assets.safeBatchTransferFrom(travellers[from % 3], travellers[to % 3], batch, amounts, "");
    }

    function sign(uint256 from, uint256 to, uint256 which, uint256 amount, uint256 nonce) external lockedStays {
        (Intents.Transfer memory intent, bytes memory signature) = signed(from, to, which, amount, nonce);
        bool before = assets.isNonceUsed(intent.from, intent.nonce);
        assets.transferWithSignature(intent, signature);
        count(intent, before);
    }

    function replay(uint256 which) external lockedStays {
        if (seen.length == 0) return;
        Intents.Transfer memory intent = seen[which % seen.length];
        bool before = assets.isNonceUsed(intent.from, intent.nonce);
        assets.transferWithSignature(intent, signatures[which % seen.length]);
        count(intent, before);
    }

    function relay(uint256 from, uint256 to, uint256 which, uint256 amount, uint256 nonce) external lockedStays {
        (Intents.Transfer[] memory intents, bytes[] memory sigs) = (new Intents.Transfer[](3), new bytes[](3));
        bool[3] memory before;
        uint256 expected;
        for (uint256 i = 0; i < 3; ++i) {
            (intents[i], sigs[i]) = signed(from, to, which, amount >> (i * 64), nonce + i / 2);
            before[i] = assets.isNonceUsed(intents[i].from, intents[i].nonce);
        }
        uint256 succeeded = assets.relay(intents, sigs, RELAY_GAS);
        // the first two share a nonce: at most one of them took effect
        for (uint256 i = 1; i < 3; ++i) {
            if (!before[i] && assets.isNonceUsed(intents[i].from, intents[i].nonce)) {
                ++expected;
                ++uses[intents[i].from][intents[i].nonce];
            }
        }
        if (succeeded != expected) broken = true;
    }

    function cancel(uint256 who, uint256 nonce) external lockedStays {
        address owner = travellers[who % 3];
        nonce = FIRST_NONCE + nonce % NONCES;
        vm.prank(owner);
        assets.cancel(nonce);
        ++uses[owner][nonce];
    }

    function lock(uint256 who, uint256 where, uint256 which, uint256 amount, uint256 time, uint256 nonce)
        external
        lockedStays
    {
        Intents.Lock memory intent = Intents.Lock({
            owner: travellers[who % 3],
            world: worlds[where % 2],
            id: ids[which % 2],
            amount: amount % CAP,
            until: uint64(block.timestamp + time % 8 days),
            nonce: (1 << 128) + nonce % (1 << 64),
            deadline: block.timestamp
        });
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key(who), assets.hashLock(intent));
        assets.lockWithSignature(intent, abi.encodePacked(r, s, v));
        ++uses[intent.owner][intent.nonce];
    }

    function release(uint256 who, uint256 where, uint256 which, bool asWorld) external lockedStays {
        if (asWorld) vm.prank(worlds[where % 2]);
        assets.unlock(travellers[who % 3], worlds[where % 2], ids[which % 2]);
    }

    function wait(uint256 time) external lockedStays {
        vm.warp(block.timestamp + time % 2 days);
    }

    function signed(uint256 from, uint256 to, uint256 which, uint256 amount, uint256 nonce)
        private
        returns (Intents.Transfer memory intent, bytes memory signature)
    {
        intent = Intents.Transfer({
            from: travellers[from % 3],
            to: travellers[to % 3],
            id: ids[which % 2],
            amount: amount % CAP,
            nonce: FIRST_NONCE + nonce % NONCES,
            deadline: block.timestamp + 1 days
        });
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key(from), assets.hashTransfer(intent));
        signature = abi.encodePacked(r, s, v);
        seen.push(intent);
        signatures.push(signature);
    }

    function count(Intents.Transfer memory intent, bool before) private {
        if (before || !assets.isNonceUsed(intent.from, intent.nonce)) broken = true;
        ++uses[intent.from][intent.nonce];
    }

    /// @notice The most often that any of the nonces in play took effect.
    function mostUses() external view returns (uint256 most) {
        for (uint256 i = 0; i < 3; ++i) {
            for (uint256 nonce = FIRST_NONCE; nonce < FIRST_NONCE + NONCES; ++nonce) {
                uint256 times = uses[travellers[i]][nonce];
                if (times > most) most = times;
            }
        }
    }
}
