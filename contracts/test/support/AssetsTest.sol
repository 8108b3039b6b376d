// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Assets} from "../../src/Assets.sol";
import {Intents} from "../../src/Intents.sol";
import {Classes} from "../../src/Classes.sol";
import {Vm} from "./Vm.sol";

/// @notice What every test stands on: a fresh ledger, a few accounts with keys, and short ways to sign.
abstract contract AssetsTest {
    /// @dev Where Foundry answers cheat codes.
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant ALICE_KEY = 0xA11CE;
    uint256 internal constant BOB_KEY = 0xB0B;
    uint256 internal constant WORLD_KEY = 0x3012D;
    /// @dev Half the order of secp256k1: a signature's s above it has a twin below.
    uint256 internal constant CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    /// @dev Any moment after 1970, so that the past is a valid time too.
    uint256 internal constant NOW = 1_800_000_000;
    bytes32 internal constant DIGEST = keccak256("a descriptor");

    Assets internal assets;
    uint256 private salts;
    address internal alice = vm.addr(ALICE_KEY);
    address internal bob = vm.addr(BOB_KEY);
    address internal issuer = vm.addr(0x155);
    address internal world = vm.addr(WORLD_KEY);

    function setUp() public virtual {
        vm.warp(NOW);
        assets = new Assets();
    }

    /// @dev A class with `cap`, of which `to` holds `amount`.
    function given(address to, uint256 amount, uint128 cap) internal returns (uint256 id) {
        id = madeBy(issuer, terms(cap));
        vm.prank(issuer);
        assets.mint(to, id, amount);
    }

    /// @dev A class of soulbound units, of which `to` holds `amount`.
    function bound(address to, uint256 amount) internal returns (uint256 id) {
        Classes.Terms memory its = terms(0);
        its.soulbound = true;
        id = madeBy(issuer, its);
        vm.prank(issuer);
        assets.mint(to, id, amount);
    }

    /// @dev A new class of `maker`'s.
    function madeBy(address maker, Classes.Terms memory its) internal returns (uint256) {
        vm.prank(maker);
        return assets.createClass(bytes32(++salts), its, DIGEST);
    }

    /// @dev Plain terms: transferable, frozen, without royalty.
    function terms(uint128 cap) internal pure returns (Classes.Terms memory) {
        return Classes.Terms(cap, false, Classes.Policy.FROZEN, 0, address(0), 0);
    }

    function transferOf(address from, address to, uint256 id, uint256 amount, uint256 nonce)
        internal
        view
        returns (Intents.Transfer memory)
    {
        return Intents.Transfer(from, to, id, amount, nonce, block.timestamp + 1 hours);
    }

    function lockOf(address owner, uint256 id, uint256 amount, uint256 nonce)
        internal
        view
        returns (Intents.Lock memory)
    {
        return
            Intents.Lock(owner, world, id, amount, uint64(block.timestamp + 1 days), nonce, block.timestamp + 1 hours);
    }

    /// @dev Lock units of `owner`'s for `where`, for a day.
    function lock(address owner, uint256 key, address where, uint256 id, uint256 amount, uint256 nonce)
        internal
        returns (Intents.Lock memory intent)
    {
        intent = lockOf(owner, id, amount, nonce);
        intent.world = where;
        assets.lockWithSignature(intent, signed(key, intent));
    }

    function spendOf(address owner, uint256 id, uint256 max, uint256 nonce)
        internal
        view
        returns (Intents.Spend memory)
    {
        return Intents.Spend(owner, world, id, max, uint64(block.timestamp + 1 days), nonce, block.timestamp + 1 hours);
    }

    function batchOf(address from, address to, uint256[] memory ids, uint256[] memory amounts, uint256 nonce)
        internal
        view
        returns (Intents.BatchTransfer memory)
    {
        return Intents.BatchTransfer(from, to, ids, amounts, nonce, block.timestamp + 1 hours);
    }

    /// @dev Some of one class for some of another, with the same nonce on both sides.
    function swapOf(
        address first,
        address second,
        uint256 given_,
        uint256 amount,
        uint256 taken,
        uint256 price,
        uint256 nonce
    ) internal view returns (Intents.Swap memory) {
        return Intents.Swap(
            first, second, items(given_, amount), items(taken, price), nonce, nonce, block.timestamp + 1 hours
        );
    }

    /// @dev A list of one item.
    function items(uint256 id, uint256 amount) internal pure returns (Intents.Item[] memory list) {
        list = new Intents.Item[](1);
        list[0] = Intents.Item(id, amount);
    }

    /// @dev What EIP-712 makes of a struct's hash in the ledger's domain, spelled out by hand.
    function typed(bytes32 body) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("p2pos"),
                keccak256("1"),
                block.chainid,
                address(assets)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, body));
    }

    function signed(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function signed(uint256 key, Intents.Transfer memory intent) internal view returns (bytes memory) {
        return signed(key, assets.hashTransfer(intent));
    }

    function signed(uint256 key, Intents.Lock memory intent) internal view returns (bytes memory) {
        return signed(key, assets.hashLock(intent));
    }

    /// @dev Submit, expecting it to be refused with `reason`, changing nothing. (The hash is taken first, because the
    /// expectation counts for the next call.)
    function refused(Intents.Transfer memory intent, bytes memory signature, bytes memory reason) internal {
        vm.expectRevert(reason);
        assets.transferWithSignature(intent, signature);
    }

    function eq(uint256 left, uint256 right) internal pure {
        if (left != right) revert Unequal(left, right);
    }

    function eq(bytes memory left, bytes memory right) internal pure {
        if (keccak256(left) != keccak256(right)) revert UnequalBytes(left, right);
    }

    function yes(bool condition) internal pure {
        if (!condition) revert Untrue();
    }

    error Unequal(uint256 left, uint256 right);
    error UnequalBytes(bytes left, bytes right);
    error Untrue();
}
