#!/usr/bin/env python3
"""Writes headers.json: odd safetensors headers and what the format's own implementation says of each.

    python generate_headers.py

Needs safetensors. A case a line: "what" it is about; "header" in hexadecimal, as not all of it is
text; "data", the number of zero bytes behind it; "accepts" whether the implementation reads the file;
if so, "tensors" as [name, type, shape] sorted by name, and "metadata".
"""

import json
import random
import tempfile
from pathlib import Path

from safetensors import SafetensorError, __version__, deserialize, safe_open

HERE = Path(__file__).parent


def entry(begin=0, end=8, shape="2", dtype="F32"):
    return f'{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}'


def by_hand():
    """(what, header, bytes of data)"""
    one = f'"w":{entry()}'
    w = f"{{{one}}}"

    def metadata(value):
        return f'{{"__metadata__":{value},{one}}}'

    yield "plain", w, 8
    for value in ("null", "{}", '{"a":"b"}', '{"a":null}', '{"a":1}', '{"a":true}', '{"a":["b"]}',
                  '{"a":{"b":"c"}}', "[]", '""', "0", "false", '{"":""}', '{"a":"b","a":"c"}',
                  '{"a":"\\u0000"}', '{"a":"\\ud83d\\ude00"}', '{"a":"\\ud83d"}', '{"a":"\\ude00\\ud83d"}',
                  '{"a":"\n"}', '{"a":"\t"}', '{"a":"\x7f"}', '{"a":"\\/\\b\\f\\n\\r\\t\\"\\\\"}',
                  '{"a":"\\v"}', '{"a":"\\u12"}', '{"a":"\\u00zz"}', '{"a":"b",}', '{,}', '{"a" "b"}',
                  '{a:"b"}', "{'a':'b'}", ' { "a" : "b" } ', '{"a":"b"', '{"a":"ä字"}'):
        yield "metadata", metadata(value), 8
    yield "metadata", '{"__metadata__":null}', 0
    yield "metadata", '{"__metadata__":null,"__metadata__":null}', 0
    yield "metadata", '{"__metadata__":{},"__metadata__":{}}', 0
    yield "metadata", f'{{{one},"__metadata__":{{"k":"v"}}}}', 8
    yield "metadata", '{"\\u005f_metadata__":{"k":"v"}}', 0
    yield "metadata", f'{{"__METADATA__":{entry()}}}', 8
    yield "metadata", f'{{"__metadata__":{entry()}}}', 8
    yield "metadata", '{"__metadata__":{"dtype":"F32","shape":"2","data_offsets":"0"}}', 0
    for text in ("{}", "{ }", "{\n}", "{\t\r\n}", "{}  ", "{}\n", "{}\0", "{}\t\0", "{}{}", "{},", "{}x",
                 " {}", "\n{}", "\ufeff{}", "[]", "null", '""', "0", "{", "}", "{{}}", "{]", "{[]}",
                 "{null:null}", "{1:2}", "{}//", "{/**/}"):
        yield "text", text, 0
    for space in (" ", "\n", "\t", "\r", "\v", "\f", "\u00a0", "\u2028", "\0"):
        yield "space", w.replace(",", f"{space},{space}").replace(":", f"{space}:{space}"), 8
        yield "space", w + space * 8, 8
        yield "space", w[:-1] + space + "}", 8
        yield "space", "{" + space + w[1:], 8
    for number in ("-1", "-0", "+0", "00", "08", "0.0", "0e0", "1e1", "0x8", "8.", ".8", "8_0", "1E0",
                   "9223372036854775807", "9223372036854775808", "18446744073709551615",
                   "18446744073709551616", "99999999999999999999999", '"8"', "null", "true", "[8]", "{}",
                   "", " 8 ", "NaN", "Infinity", "٣"):
        yield "number", f"{{\"w\":{entry(0, number)}}}", 8
        yield "number", f"{{\"w\":{entry(number, 8)}}}", 8
        yield "number", f"{{\"w\":{entry(shape=number)}}}", 8
        yield "number", f"{{\"w\":{entry(0, 0, shape=f'0,{number}')}}}", 0
        yield "number", f"{{\"w\":{entry(0, 0, shape=f'{number},0')}}}", 0
    for shape in ("", "2", "1,2", "2,1", "1,1,1,1,1,1,1,1,1,2", "0", "3", "2,", ",2", "2 2", "1,[2]", "2,null",
                  "0,0", "4611686018427387904,4", "4294967296,4294967296", "4294967296,4294967296,0",
                  "0,4294967296,4294967296", "9223372036854775807,2", "2305843009213693952",
                  "2305843009213693953"):
        for size in (0, 4, 8):
            yield "shape", f"{{\"w\":{entry(0, size, shape)}}}", size
    for begin, end, size in ((0, 8, 7), (0, 8, 9), (0, 8, 0), (8, 0, 8), (4, 12, 12), (0, 4, 8), (8, 16, 8),
                             (0, 8, 16), (1, 9, 9), (0, 0, 0), (8, 8, 8)):
        yield "offsets", f"{{\"w\":{entry(begin, end)}}}", size
    for offsets in ("[]", "[0]", "[0,8,8]", "[0,8,]", "0,8", "{}", "null", '"0,8"', '{"0":0,"1":8}', "[[0,8]]"):
        yield "offsets", f'{{"w":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}', 8
    for pair in (((0, 8), (8, 16)), ((8, 16), (0, 8)), ((0, 8), (0, 8)), ((0, 8), (4, 12)), ((0, 8), (12, 20)),
                 ((0, 8), (16, 24)), ((0, 16), (8, 16))):
        yield "two", f"{{\"a\":{entry(*pair[0])},\"b\":{entry(*pair[1])}}}", max(pair[0][1], pair[1][1])
    yield "two", f"{{\"a\":{entry(0, 0, '0')},\"b\":{entry(0, 0, '0')},\"c\":{entry()}}}", 8
    yield "two", f"{{\"a\":{entry(8, 8, '0')},\"b\":{entry(0, 0, '0')},\"c\":{entry()}}}", 8
    yield "two", f"{{\"a\":{entry(4, 4, '0')},\"c\":{entry()}}}", 8
    yield "twice", f'{{{one},{one}}}', 8
    yield "twice", f'{{{one},"\\u0077":{entry(8, 16)}}}', 16
    yield "twice", f'{{"w":{entry(8, 16)},{one}}}', 8
    yield "names", f'{{"é":{entry()},"e\u0301":{entry(8, 16)}}}', 16
    for dtype in ("F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "f32", "F33", "", " F32",
                  "F\\u00332", "C64", "F4", "U64"):
        for size in (2, 4, 8, 16):
            yield "type", f"{{\"w\":{entry(0, size, dtype=dtype)}}}", size
    parts = ['"dtype":"F32"', '"shape":[2]', '"data_offsets":[0,8]']
    for some in ([0, 1], [1, 2], [0, 2], [], [0, 1, 2, 0], [0, 1, 1, 2], [2, 1, 0], [1, 0, 2]):
        yield "keys", f'{{"w":{{{",".join(parts[i] for i in some)}}}}}', 8
    for extra in ('"x":1', '"x":null', '"x":[1,[2,{"y":"z"}],-1.5e-3,true,false]', '"x":{}', '"":""', '"x":-',
                  '"x":01', '"x":1.', '"x":1e', '"x":1e999', '"x":tru', '"x":[1,]', '"x":{"a"}', '"x":"\\ud800"',
                  '"x":"\t"', '"x":' + "[" * 100 + "]" * 100, '"x":' + "[" * 130 + "]" * 130,
                  '"x":' + '{"y":' * 130 + "1" + "}" * 130, '"x":1,"x":2', '"Dtype":"F32"', '"dtype ":"F32"',
                  '"x":123456789012345678901234567890', '"x":-0', '"x":+1', '"x":.5', '"x":0.5', '"x":1E+2'):
        yield "keys", f'{{"w":{{{",".join(parts)},{extra}}}}}', 8
        yield "keys", f'{{"w":{{{extra},{",".join(parts)}}}}}', 8
    for value in ("null", "[]", "{}", '"F32"', "0", '["F32",[2],[0,8]]', '["F32",[2]]', '["F32",[2],[0,8],0]'):
        yield "entry", f'{{"w":{value}}}', 8
    for name in ("", " ", "a\\u0000b", "\\ud83d\\ude00", "\\ud800", "\\uDFFF", "\\\\", '\\"', "\n", "\0", "\x1f",
                 "\x7f", "\u0080", "__metadata__ ", "ä字\U0001f600", "a" * 1000, "\\x", "\\", "\\u", "\\u{61}"):
        yield "names", f"{{\"{name}\":{entry()}}}", 8
    for raw in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98\x80"):
        yield "encoding", b'{"' + raw + b'":' + entry().encode() + b"}", 8
        yield "encoding", b'{"__metadata__":{"a":"' + raw + b'"}}', 0


def at_random(count):
    """A file of two tensors and some metadata, damaged in one to three places."""
    rng = random.Random(11)
    whole = f'{{"__metadata__":{{"format":"pt"}},"a":{entry()},"b":{entry(8, 16, "2,2", "BF16")}}}'
    pieces = ["{", "}", "[", "]", ",", ":", '"', "0", "8", "16", " ", "null", "-", "\\", '"a"', "{}", "[]", "1e1"]
    for _ in range(count):
        text = whole
        for _ in range(rng.randint(1, 3)):
            at, length = rng.randrange(len(text)), rng.choice((0, 0, 1, 1, 2, 5))
            text = text[:at] + rng.choice(pieces + ["", ""]) + text[at + length:]
        yield "damaged", text, rng.choice((16, 16, 16, 8, 17))


def verdict(header, data):
    file = len(header).to_bytes(8, "little") + header + bytes(data)
    try:
        tensors = deserialize(file)
    except (SafetensorError, OverflowError):
        return dict(accepts=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(file)
        try:
            with safe_open(path, "np") as opened:
                metadata = opened.metadata() or {}
        except (SafetensorError, OverflowError):
            return dict(accepts=False)
    return dict(
        accepts=True, tensors=sorted([name, t["dtype"], t["shape"]] for name, t in tensors),
        metadata=metadata)


def main():
    lines, seen, accepted = [], set(), 0
    for what, header, data in [*by_hand(), *at_random(200)]:
        header = header if isinstance(header, bytes) else header.encode()
        if (header, data) in seen:
            continue
        seen.add((header, data))
        case = dict(what=what, header=header.hex(), data=data, **verdict(header, data))
        accepted += case["accepts"]
        lines.append(json.dumps(case, separators=(",", ":")))
    text = f'{{"safetensors":"{__version__}","cases":[\n' + ",\n".join(lines) + "\n]}\n"
    (HERE / "headers.json").write_text(text)
    print(f"headers.json: {len(lines)} cases, {accepted} accepted")


if __name__ == "__main__":
    main()
