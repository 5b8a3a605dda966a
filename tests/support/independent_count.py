# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Counts a compiled program's FLOPs, bytes of main memory and collective bytes a second time.

Written from the HLO text alone and without f3tok_jax.cost, whose figures it is held against: recursive
where that walks, by places where that goes by names of operations. Kernels' products are left out.
"""

import collections
import math
import re

_WIDTHS = {"pred": 8, "token": 0, "s4": 4, "u4": 4}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_LINE = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([a-z][a-z\d\-]*)\((.*)$")
_SPEAKS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "send")
_SILENT = set("parameter constant tuple get-tuple-element bitcast after-all partition-id".split())
_TOOLS = ("AllocateBuffer", "AssumeGather", "ConcatBitcast", "AsyncCollective", "GatherScatter")


def count(text: str) -> dict[str, float]:
    """FLOPs of products, bytes from and to main memory, and bytes of collectives, per device."""
    program = _Program(text)
    total = program.run(program.entry)
    return dict(flops=total[0], bytes=total[1], collective_bytes=total[2])


class _Program:
    def __init__(self, text):
        self.blocks, self.types, self.entry, block = {}, {}, None, None
        for line in text.splitlines():
            if re.match(r"(ENTRY )?%[\w.\-]+ \(.*\{$", line):
                name = line.split("(")[0].replace("ENTRY", "").strip(" %")
                block = self.blocks[name] = []
                self.entry = name if line.startswith("ENTRY") else self.entry
            elif (found := _LINE.match(line)) and block is not None:
                name, kind, op, rest = found.groups()
                inside = _until_closed(rest)
                block.append((name, kind, op, re.findall(r"%([\w.\-]+)", inside), rest))
                self.types[name] = kind
            elif line.startswith("}}") and block:  # what follows a kernel's metadata
                block[-1] = (*block[-1][:4], block[-1][4] + line)

    def run(self, block):
        total, heard = [0.0, 0.0, 0.0], set()
        for name, kind, op, args, rest in self.blocks[block]:
            times, inner = 1.0, []
            if op == "while":
                times, inner = self.trips(rest), [_named(rest, "body")]
            elif op == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", rest)
                names = re.findall(r"%([\w.\-]+)", branches.group(1)) if branches else []
                names = names or re.findall(r"_computation=%([\w.\-]+)", rest)
                inner = [max(names, key=lambda one: self.run(one)[1])]
            elif op == "call":
                inner = [_named(rest, "to_apply")]
            else:
                total[0] += self.flops(name, kind, op, args, rest)
                total[1] += self.moved(kind, op, args, rest)
                total[2] += self.said(kind, op, args, rest, heard)
            for one in inner:
                total = [a + times * b for a, b in zip(total, self.run(one))]
        return total

    def trips(self, rest):
        known = re.search(r'known_trip_count":\{"n":"(\d+)"', rest)
        if known:
            return float(known.group(1))
        body, condition = _named(rest, "body"), _named(rest, "condition")
        limits = [int(_literal(r)) for _, _, op, _, r in self.blocks[condition] if op == "constant"]
        steps = [
            int(_literal(r)) for n, k, op, _, r in self.blocks[body] if self.is_step(n, body, k, op)
        ]
        return max(limits, default=1) / max(steps, default=1)

    def is_step(self, name, body, kind, op):
        """Whether a constant is what the counter of a loop grows by."""
        grows = [args for _, k, o, args, _ in self.blocks[body] if o == "add" and k == kind]
        return op == "constant" and kind[:5] in ("s32[]", "u32[]") and any(name in a for a in grows)

    def inside(self, op, rest):
        return self.blocks.get(_named(rest, "calls"), []) if op in ("fusion", "async-start") else []

    def flops(self, name, kind, op, args, rest):
        if op == "dot":
            left = _sizes(self.types[args[0]])
            axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest).group(1)
            inner = math.prod(left[int(axis)] for axis in axes.split(",") if axis)
            return 2.0 * inner * math.prod(_sizes(kind))
        if op == "convolution":
            return self.convolution(kind, args, rest)
        return sum(self.flops(*one) for one in self.inside(op, rest))

    def convolution(self, kind, args, rest):
        left, right, out = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", rest).groups()
        image, taps, made = (
            _sizes(one) for one in (self.types[args[0]], self.types[args[1]], kind)
        )
        window = re.search(r"window=\{([^}]*)\}", rest)
        options = dict(one.split("=") for one in window.group(1).split()) if window else {}
        total = 2.0 * made[out.index("b")] * made[out.index("f")] * taps[right.index("i")]
        for axis in sorted(c for c in out if c.isdigit()):
            read = {k: v.split("x")[int(axis)] for k, v in options.items()}
            stride, hole = int(read.get("stride", 1)), int(read.get("lhs_dilate", 1))
            spread, low = int(read.get("rhs_dilate", 1)), int(read.get("pad", "0_0").split("_")[0])
            size = image[left.index(axis)]
            total *= sum(
                _multiples(place * stride - low, size, hole, taps[right.index(axis)], spread)
                for place in range(made[out.index(axis)])
            )
        return total

    def moved(self, kind, op, args, rest):
        if (
            op in _SILENT
            or op.endswith("-done")
            or any(f'target="{tool}' in rest for tool in _TOOLS)
        ):
            return 0.0
        if op in ("copy-start", "slice-start"):
            arrays = [_near_and_all(one.group(0)) for one in _ARRAY.finditer(kind)]
            made = arrays[0] if op == "copy-start" else arrays[1]
            return made[1] * ((made[0] > 0) + (_near_and_all(self.types[args[0]])[0] > 0))
        near = {name: _near_and_all(self.types.get(name, ""))[0] for name in args}
        result, whole = _near_and_all(kind)
        if op in ("dynamic-slice", "slice", "gather"):
            return result + whole * (near[args[0]] > 0)
        if op == "dynamic-update-slice":
            return 2 * _near_and_all(self.types[args[1]])[1] * (result > 0)
        if op == "scatter":
            return 2 * _near_and_all(self.types[args[2]])[1] * (result > 0)
        if op in ("all-gather-start", "collective-permute-start", "async-start"):
            return result  # a tuple, of which the operand is a part
        if op != "fusion":
            return result + sum(near.values())
        return self.fused(kind, args, rest, near)

    def fused(self, kind, args, rest, near):
        block = self.blocks[_named(rest, "calls")]
        parameters = {int(r.split(")")[0]): n for n, _, op, _, r in block if op == "parameter"}
        read = {arg: self.touched(block, parameters[i]) for i, arg in enumerate(args) if near[arg]}
        by_name = {one[0]: one for one in block}
        root = block[-1]
        made = root[3] if root[2] == "tuple" else [root[0]]
        arrays = [one.group(0) for one in _ARRAY.finditer(kind)] if root[2] == "tuple" else [kind]
        written = 0.0
        for name, array in zip(made, arrays):
            _, _, op, _, attributes = by_name[name]
            passes = op in ("parameter", "get-tuple-element", *_SPEAKS)
            if not passes and not any(f'target="{tool}' in attributes for tool in _TOOLS):
                written += _near_and_all(array)[0]
        for _, inner_kind, op, inner_args, attributes in block:
            if op in ("dynamic-update-slice", "scatter"):
                part = _near_and_all(self.types[inner_args[1 + (op == "scatter")]])[1]
                whole = _near_and_all(inner_kind)[0]
                written -= max(0.0, whole - part * (whole > 0))
            if 'target="AsyncCollectiveStart' in attributes:
                written += _near_and_all(inner_kind)[0]
        return sum(read.values()) + max(0.0, written)

    def touched(self, block, name):
        """Bytes of a fusion's parameter that anything in it looks at."""
        whole, total = _near_and_all(self.types[name])[1], 0.0
        for _, kind, op, args, rest in block:
            if name not in args or op in ("tuple", *_SPEAKS):
                continue
            if any(f'target="{tool}' in rest for tool in _TOOLS):
                continue
            if op in ("dynamic-slice", "slice", "gather") and args[0] == name:
                total += _near_and_all(kind)[1]
            elif op == "fusion":
                inner = self.blocks[_named(rest, "calls")]
                names = {int(r.split(")")[0]): n for n, _, o, _, r in inner if o == "parameter"}
                places = [i for i, arg in enumerate(args) if arg == name]
                total += sum(self.touched(inner, names[i]) for i in places)
            elif op not in ("dynamic-update-slice", "scatter") or args[0] != name:
                return whole
        return min(whole, total)

    def said(self, kind, op, args, rest, heard):
        total = 0.0
        for name, inner_kind, inner_op, inner_args, attributes in [
            ("", kind, op, args, rest),
            *self.inside(op, rest),
        ]:
            if inner_op in ("fusion",) and name:
                total += self.said(inner_kind, inner_op, inner_args, attributes, heard)
            word = inner_op.removesuffix("-start")
            if word not in _SPEAKS:
                continue
            channel = re.search(r"channel_id=(\d+)", attributes)
            to_host = "is_host_transfer=true" in attributes
            key = (word, channel.group(1)) if channel and not to_host else (word, len(heard))
            group = _group(attributes)
            if key in heard or group == 1:
                continue
            heard.add(key)
            bare = [re.sub(r"T\([\d,]+\)", "", self.types[one]) for one in set(inner_args)]
            sent = sum(_near_and_all(one)[1] for one in bare)
            total += sent * (group if word == "all-gather" else 1)
        return total


def _group(attributes):
    """How many devices speak to each other."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", found.group(2)))
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=", attributes):
        return int(found.group(1).split(",")[-1])
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}", attributes):
        return len(found.group(1).split(","))
    return 2


def _near_and_all(kind):
    """Bytes of the arrays of a type that lie in main memory, and of all of them."""
    total = collections.Counter()
    for one in _ARRAY.finditer(kind):
        bits = _WIDTHS.get(one.group(1))
        if bits is None:
            digits = re.search(r"\d+", one.group(1))
            bits = int(digits.group(0)) if digits else 0
        layout, sizes = one.group(3) or "", [int(n) for n in one.group(2).split(",") if n]
        axes = [int(n) for n in re.findall(r"\d+", layout.split(":")[0])]
        # Tiles are whole: of the innermost axis the last number of a tile, of the next the one before.
        for tile in re.findall(r"T\(([\d,]+)\)", layout)[:1]:
            for axis, whole in zip(axes, map(int, tile.split(",")[::-1])):
                sizes[axis] = math.ceil(sizes[axis] / whole) * whole
        size = bits / 8 * math.prod(sizes)
        total["all"] += size
        total["near"] += size * (not re.search(r"S\(\d+\)", layout))
    return total["near"], total["all"]


def _multiples(start, size, hole, taps, spread):
    """Taps start, start + spread, ... that lie on an element, one every `hole`."""
    places = (start + tap * spread for tap in range(taps))
    return sum(0 <= place <= (size - 1) * hole and place % hole == 0 for place in places)


def _sizes(kind):
    return [int(n) for n in _ARRAY.search(kind).group(2).split(",") if n]


def _named(rest, key):
    found = re.search(rf"\b{key}=%([\w.\-]+)", rest)
    return found.group(1) if found else ""


def _literal(rest):
    found = re.match(r"(\d+)\)", rest)
    return found.group(1) if found else 0


def _until_closed(rest):
    depth = 1
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return rest[:place]
    return rest
