// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {ERC1155} from "@openzeppelin/contracts/token/ERC1155/ERC1155.sol";
import {ERC1155Holder} from "@openzeppelin/contracts/token/ERC1155/utils/ERC1155Holder.sol";
import {IERC1155Receiver} from "@openzeppelin/contracts/token/ERC1155/IERC1155Receiver.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Assets} from "../../src/Assets.sol";

/// @notice A wallet contract that two keys hold together: its signature is the two of theirs, 130 bytes.
contract JointWallet is ERC1155Holder, IERC1271 {
    address private immutable first;
    address private immutable second;

    constructor(address first_, address second_) {
        (first, second) = (first_, second_);
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        if (signature.length != 130) return 0xffffffff;
        bool both = ECDSA.recover(hash, signature[:65]) == first && ECDSA.recover(hash, signature[65:]) == second;
        return both ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @notice A contract that can hold nothing: it has no hook.
contract Mute {}

/// @notice A receiver whose answer is supplied by the children below.
abstract contract Receiver is IERC1155Receiver {
    function supportsInterface(bytes4) external pure returns (bool) {
        return true;
    }

    function onERC1155Received(address, address, uint256, uint256, bytes calldata) external virtual returns (bytes4) {
        return hook();
    }

    function onERC1155BatchReceived(address, address, uint256[] calldata, uint256[] calldata, bytes calldata)
        external
        virtual
        returns (bytes4)
    {
        return hook();
    }

    function hook() internal virtual returns (bytes4);
}

/// @notice Refuses with an error of its own.
contract Refusing is Receiver {
    error NotWelcome();

    function hook() internal pure override returns (bytes4) {
        revert NotWelcome();
    }
}

/// @notice Burns all the gas that it gets.
contract Burning is Receiver {
    function hook() internal view override returns (bytes4) {
        while (gasleft() > 0) {}
        return IERC1155Receiver.onERC1155Received.selector;
    }
}

/// @notice Accepts, after using a given amount of gas.
contract Costly is Receiver {
    uint256 private immutable price;

    constructor(uint256 price_) {
        price = price_;
    }

    function hook() internal view override returns (bytes4) {
        uint256 start = gasleft();
        while (start - gasleft() < price) {}
        return IERC1155Receiver.onERC1155Received.selector;
    }
}

/// @notice Refuses with as many bytes as its gas can pay for.
contract Bomb is Receiver {
    function hook() internal view override returns (bytes4) {
        assembly ("memory-safe") {
            // 3 gas a word and words**2 / 512: 50,000 bytes take about 9,500 gas; a million, 1.9 million
            let size := 50000
            if gt(gas(), 3000000) { size := 1000000 }
            revert(mload(0x40), size)
        }
    }
}

/// @notice A wallet that answers a signature's check with a great many bytes.
contract BombWallet is ERC1155Holder, IERC1271 {
    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        assembly ("memory-safe") {
            let size := 50000
            if gt(gas(), 3000000) { size := 1000000 }
            revert(0, size)
        }
    }
}

/// @notice On receiving an item, does once whatever it was told to, and remembers what came of it.
contract Reentering is ERC1155Holder {
    Assets private immutable assets;
    bytes private call;
    bool public tried;
    bool public succeeded;
    bytes public answer;

    constructor(Assets assets_) {
        assets = assets_;
    }

    function prepare(bytes calldata call_) external {
        call = call_;
    }

    function onERC1155Received(address a, address b, uint256 c, uint256 d, bytes memory e)
        public
        override
        returns (bytes4)
    {
        if (!tried && call.length != 0) {
            tried = true;
            (succeeded, answer) = address(assets).call(call);
        }
        return super.onERC1155Received(a, b, c, d, e);
    }
}

/// @notice OpenZeppelin's own ledger, to compare with.
contract Plain is ERC1155("") {
    function mint(address to, uint256 id, uint256 amount) external {
        _mint(to, id, amount, "");
    }
}

/// @notice Answers its hooks with the wrong word.
contract Liar is Receiver {
    function hook() internal pure override returns (bytes4) {
        return 0xdeadbeef;
    }
}

/// @notice Takes everything and remembers what it was last told.
contract Watching is ERC1155Holder {
    bytes public seen;

    function onERC1155Received(address operator, address from, uint256 id, uint256 value, bytes memory data)
        public
        override
        returns (bytes4)
    {
        seen = abi.encode(operator, from, id, value, data);
        return super.onERC1155Received(operator, from, id, value, data);
    }

    function onERC1155BatchReceived(
        address operator,
        address from,
        uint256[] memory ids,
        uint256[] memory values,
        bytes memory data
    ) public override returns (bytes4) {
        seen = abi.encode(operator, from, ids, values, data);
        return super.onERC1155BatchReceived(operator, from, ids, values, data);
    }
}
