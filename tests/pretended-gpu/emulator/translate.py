#!/usr/bin/env python3
"""Makes a shared library of a CUDA C++ source of CubeCL's; prints its path, and `waits` or `runs`: whether threads of a block wait
for each other. Libraries are kept by the hash of the source in $EMU_CACHE."""
import hashlib, os, re, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("EMU_CACHE", os.path.join(os.path.expanduser("~"), ".cache", "cuda-emu"))

def balanced(text, at):
    """The position behind the brace that closes the one at `at`."""
    depth = 0
    for i in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if not depth:
            return i + 1
    raise ValueError("unbalanced braces")

def in_lockstep(source):
    """CubeK's matrix products with mma.sync write to shared memory and read what other lanes of the warp have written there without
    a __syncwarp, which works where the lanes of a warp run in step. Coroutines do not: here the missing ones are put in, where the
    code is not under an `if`."""
    if "__mma_" not in source:
        return source
    lines, stack, wrote, read, added = [], [], False, False, 0
    shared = r"(?:shared_memory_\d+|_tmp_\d+)"
    for line in source.split("\n"):
        opens, closes = line.count("{"), line.count("}")
        kind = "if" if re.match(r"\s*(\}? *else|if)\b", line) else "for" if re.match(r"\s*(for|while)\b", line) else "plain"
        uniform = "if" not in stack
        if re.search(r"__sync|__shfl|__mma_|matrix_sync|__(ld|st)matrix", line):
            wrote = read = False
        elif "shared_memory" in line or "_tmp_" in line:
            writes = re.match(rf"\s*{shared}\[.*?\]\s*=", line)
            reads = re.search(rf"=.*{shared}\[", line)
            if not re.search(r"\*\s*(shared_memory|_tmp)_\d+ = ", line):
                if uniform and ((reads and wrote) or (writes and read)):
                    lines.append("__syncwarp();")
                    wrote = read = False
                    added += 1
                wrote, read = wrote or bool(writes), read or bool(reads)
        if kind == "for":
            wrote = read = True # of the iteration before
        for _ in range(opens):
            stack.append(kind)
        for _ in range(min(closes, len(stack))):
            if stack.pop() == "for":
                wrote = read = True
        lines.append(line)
    return "\n".join(lines)

def translate(source):
    source = re.sub(r"^#include.*\n", "", source, flags=re.M)
    source = re.sub(r"typedef struct CUtensorMap_st \{\s*alignas\(64\)", "typedef struct alignas(64) CUtensorMap_st {", source)
    # What emulator.hpp defines: functions around one instruction.
    while True:
        for found in re.finditer(r"(template <[^<>]*>\s*)?inline __device__ void\s+(__\w+)(<\d+>)?\s*\(", source):
            end = balanced(source, source.index("{", found.end()))
            if "asm volatile" in source[found.start():end]:
                source = source[:found.start()] + source[end:]
                break
        else:
            break
    source = re.sub(r"asm volatile\(\s*\"\{\\n\"\s*\"\s*\.reg \.pred %%px;\\n\"\s*\"\s*elect\.sync.*?\"\+r\"\(pred\)\);", "pred = emu::lane() == 0;", source, flags=re.S)
    source = re.sub(r"extern __shared__ __align__\(\d+\) uint8 dynamic_shared_mem\[\];", "uint8* dynamic_shared_mem = emu::shared;", source)
    head = re.search(r"extern \"C\" __global__ void (__launch_bounds__\(\d+\))?\s*(__cluster_dims__\([^)]*\))?\s*(\w+)\s*\(", source)
    name, at = head.group(3), head.end()
    depth, end = 1, at
    while depth:
        depth += {"(": 1, ")": -1}.get(source[end], 0)
        end += 1
    source = in_lockstep(source)
    head = re.search(r"extern \"C\" __global__ void (__launch_bounds__\(\d+\))?\s*(__cluster_dims__\([^)]*\))?\s*(\w+)\s*\(", source)
    arguments = []
    for i, parameter in enumerate(p.strip() for p in source[at:end - 1].split(",")):
        parameter = re.sub(r"__restrict__|__grid_constant__", "", parameter)
        kind = re.match(r"(.*?)\s*\b(\w+)$", parameter.strip(), re.S).group(1)
        kind = re.sub(r"^const\s+(?!.*\*)", "", kind)
        arguments.append(f"*({kind}*)arguments[{i}]")
    source = source[:head.start()] + f"static void {name} (" + source[at:]
    if head.group(2):
        print("clusters are not known", file=sys.stderr)
    return '#include "emulator.hpp"\n' + source + f'\nextern "C" void emu_entry(void **arguments) {{ {name}({", ".join(arguments)}); }}\n'

def main():
    source = open(sys.argv[1]).read()
    waits = re.search(r"__sync|_sync\(|barrier|__shfl|cp_async|__mma_|matrix_", source)
    header = open(f"{HERE}/emulator.hpp").read()
    key = hashlib.sha256((source + header + open(__file__).read()).encode()).hexdigest()[:24]
    os.makedirs(CACHE, exist_ok=True)
    library = f"{CACHE}/{key}.so"
    if not os.path.exists(library):
        with open(f"{CACHE}/{key}.cpp", "w") as f:
            f.write(translate(source))
        level = "-O1" if len(source) < 120_000 else "-O0"
        command = ["g++", "-std=c++17", level, "-fPIC", "-shared", "-w", "-fpermissive", "-fno-strict-aliasing", "-march=native", "-ffp-contract=fast",
                   f"-I{HERE}", "-o", library + ".tmp", f"{CACHE}/{key}.cpp"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{sys.argv[1]}: {done.stderr[:3000]}", file=sys.stderr)
            sys.exit(1)
        os.rename(library + ".tmp", library)
    print(library, "waits" if waits else "runs")

main()
