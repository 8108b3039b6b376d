// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assets} from "../../src/Assets.sol";
import {Intents} from "../../src/Intents.sol";
import {Classes} from "../../src/Classes.sol";
import {Vm} from "./Vm.sol";

/// @notice Who acts in the invariant tests: three accounts with keys that mint, send, sign, relay, replay, swap, burn,
/// cancel, lock, release, allow, spend and wait, in any order and with any arguments, sensible or not. It keeps books of
/// its own to compare with.
contract Travellers {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 private constant CAP = 1_000;
    /// @dev Few nonces, so that they collide; on both sides of a word's edge.
    uint256 private constant FIRST_NONCE = 240;
    uint256 private constant NONCES = 32;
    uint256 private constant RELAY_GAS = 150_000;

    Assets public immutable assets;
    /// @notice One class with a cap, one without, one soulbound. This contract issued them.
    uint256[3] public ids;
    address[3] public travellers;
    address[2] public worlds;
    /// @notice How often a nonce took effect.
    mapping(address owner => mapping(uint256 nonce => uint256 times)) public uses;
    /// @notice What each class's mints came to.
    mapping(uint256 id => uint256 amount) public minted;
    /// @notice What each class's burns came to.
    mapping(uint256 id => uint256 amount) public burned;
    /// @notice What each holder was given of a class and burned themselves.
    mapping(uint256 id => mapping(address owner => uint256 amount)) public given;
    mapping(uint256 id => mapping(address owner => uint256 amount)) public destroyed;
    /// @notice What a world was last allowed, and has taken since.
    mapping(address owner => mapping(uint256 id => mapping(address world => uint256 amount))) public allowed;
    mapping(address owner => mapping(uint256 id => mapping(address world => uint256 amount))) public taken;
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
        ids[0] = assets.createClass(
            "capped", Classes.Terms(uint128(CAP), false, Classes.Policy.FROZEN, 0, address(0), 0), 0
        );
        ids[1] = assets.createClass("currency", Classes.Terms(0, false, Classes.Policy.FROZEN, 0, address(0), 0), 0);
        ids[2] = assets.createClass("bound", Classes.Terms(0, true, Classes.Policy.FROZEN, 0, address(0), 0), 0);
        for (uint256 i = 0; i < 3; ++i) {
            make(travellers[i], ids[0], CAP / 5);
            make(travellers[i], ids[1], CAP * 5);
            make(travellers[i], ids[2], CAP);
            assets.setMinter(ids[i], worlds[0], type(uint128).max);
        }
    }

    function key(uint256 who) private pure returns (uint256) {
        return 0xA110 + who % 3;
    }

    /// @dev Run by every action: what worlds had locked before is still there after, whatever the action was.
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

    function make(address to, uint256 id, uint256 amount) private {
        assets.mint(to, id, amount);
        minted[id] += amount;
        given[id][to] += amount;
    }

    function mint(uint256 to, uint256 which, uint256 amount, bool byMinter) external lockedStays {
        if (byMinter) vm.prank(worlds[0]);
        make(travellers[to % 3], ids[which % 3], amount % (CAP / 2));
    }

    function burn(uint256 who, uint256 which, uint256 amount) external lockedStays {
        (address owner, uint256 id) = (travellers[who % 3], ids[which % 3]);
        amount %= CAP / 4;
        vm.prank(owner);
        assets.burn(id, amount);
        burned[id] += amount;
        destroyed[id][owner] += amount;
    }

    function send(uint256 from, uint256 to, uint256 which, uint256 amount) external lockedStays {
        vm.prank(travellers[from % 3]);
        assets.safeTransferFrom(travellers[from % 3], travellers[to % 3], ids[which % 3], amount % CAP, "");
    }

    function sendBatch(uint256 from, uint256 to, uint256 first, uint256 second, uint256 amount) external lockedStays {
        (uint256[] memory batch, uint256[] memory amounts) = (new uint256[](2), new uint256[](2));
        (batch[0], batch[1]) = (ids[first % 3], ids[second % 3]);
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
        uint256 succeeded = carry(intents, sigs);
        // the first two share a nonce: at most one of them took effect
        for (uint256 i = 1; i < 3; ++i) {
            if (!before[i] && assets.isNonceUsed(intents[i].from, intents[i].nonce)) {
                ++expected;
                ++uses[intents[i].from][intents[i].nonce];
            }
        }
        if (succeeded != expected) broken = true;
    }

    /// @dev One way of relaying or the other.
    function carry(Intents.Transfer[] memory intents, bytes[] memory sigs) private returns (uint256) {
        if (intents[0].nonce % 2 == 0) return assets.relay(intents, sigs, RELAY_GAS);
        bytes[] memory calls = new bytes[](3);
        for (uint256 i = 0; i < 3; ++i) {
            calls[i] = abi.encodeCall(assets.transferWithSignature, (intents[i], sigs[i]));
        }
        return assets.relayCalls(calls, RELAY_GAS);
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
            id: ids[which % 16 % 3],
            amount: amount % (CAP / 10),
            until: uint64(block.timestamp + time % 8 days),
            nonce: (1 << 128) + nonce % (1 << 64),
            deadline: block.timestamp
        });
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key(who), assets.hashLock(intent));
        assets.lockWithSignature(intent, abi.encodePacked(r, s, v));
        ++uses[intent.owner][intent.nonce];
    }

    /// @dev One of the locks in force, where there is any.
    function release(uint256 start, uint256 who) external lockedStays {
        for (uint256 i = 0; i < 12; ++i) {
            (address owner, address world, uint256 id) = visit(start % 12 + i);
            (uint256 amount,) = assets.lockOf(owner, id, world);
            if (amount == 0 && i < 11) continue;
            if (who % 4 != 0) vm.prank(world);
            assets.unlock(owner, world, id);
            return;
        }
    }

    function visit(uint256 number) private view returns (address owner, address world, uint256 id) {
        return (travellers[number % 3], worlds[number / 3 % 2], ids[number / 6 % 2]);
    }

    function wait(uint256 time) external lockedStays {
        vm.warp(block.timestamp + time % 2 days);
    }

    /// @dev A swap with oneself, too, and with a nonce used before.
    function swap(uint256 first, uint256 second, uint256 which, uint256 amounts, uint256 nonce) external lockedStays {
        first %= 3;
        second = (first + second % 8) % 3;
        Intents.Swap memory intent = Intents.Swap({
            first: travellers[first],
            second: travellers[second],
            firstGives: some(which, amounts, 3),
            secondGives: some(which >> 128, amounts >> 128, 2),
            firstNonce: nonce >> 8,
            secondNonce: nonce % 8 == 0 ? FIRST_NONCE : nonce >> 8,
            deadline: block.timestamp
        });
        bytes32 hash = assets.hashSwap(intent);
        bytes memory one = bySignature(first, hash);
        assets.swapWithSignatures(intent, one, bySignature(second, hash));
        ++uses[intent.first][intent.firstNonce];
        ++uses[intent.second][intent.secondNonce];
    }

    /// @dev None to two items, each of one of the first few classes.
    function some(uint256 which, uint256 amounts, uint256 classes) private view returns (Intents.Item[] memory list) {
        list = new Intents.Item[](amounts % 3);
        for (uint256 i = 0; i < list.length; ++i) {
            list[i] = Intents.Item(ids[(which >> (8 * i)) % 16 % classes], (amounts >> (64 * i)) % (CAP / 20));
        }
    }

    function allow(uint256 who, uint256 where, uint256 which, uint256 max, uint256 time, uint256 nonce)
        external
        lockedStays
    {
        Intents.Spend memory intent = Intents.Spend({
            owner: travellers[who % 3],
            world: worlds[where % 2],
            id: ids[which % 3],
            max: max % (CAP / 2),
            until: uint64(block.timestamp + time % 4 days),
            nonce: (1 << 129) + nonce % (1 << 64),
            deadline: block.timestamp
        });
        assets.allowSpendWithSignature(intent, bySignature(who, assets.hashSpend(intent)));
        ++uses[intent.owner][intent.nonce];
        allowed[intent.owner][intent.id][intent.world] = intent.max;
        taken[intent.owner][intent.id][intent.world] = 0;
    }

    /// @dev By one of the worlds that are allowed to, where there is any.
    function spend(uint256 start, uint256 amount, uint256 to) external lockedStays {
        for (uint256 i = 0; i < 12; ++i) {
            (address owner, address world, uint256 id) = visit(start % 12 + i);
            (uint256 left, uint64 until) = assets.spendAllowance(owner, id, world);
            if (left == 0 && i < 11) continue;
            address receiver = to % 4 == 3 ? address(0) : travellers[to % 4];
            amount %= left + 2;
            vm.prank(world);
            assets.spend(owner, id, amount, receiver);
            if (block.timestamp >= until) broken = true;
            taken[owner][id][world] += amount;
            if (receiver == address(0)) burned[id] += amount;
            return;
        }
    }

    function revoke(uint256 who, uint256 where, uint256 which) external lockedStays {
        vm.prank(travellers[who % 3]);
        assets.revokeSpend(worlds[where % 2], ids[which % 3]);
        allowed[travellers[who % 3]][ids[which % 3]][worlds[where % 2]] = 0;
        taken[travellers[who % 3]][ids[which % 3]][worlds[where % 2]] = 0;
    }

    function bySignature(uint256 who, bytes32 hash) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key(who), hash);
        return abi.encodePacked(r, s, v);
    }

    function signed(uint256 from, uint256 to, uint256 which, uint256 amount, uint256 nonce)
        private
        returns (Intents.Transfer memory intent, bytes memory signature)
    {
        intent = Intents.Transfer({
            from: travellers[from % 3],
            to: travellers[to % 3],
            id: ids[which % 3],
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
