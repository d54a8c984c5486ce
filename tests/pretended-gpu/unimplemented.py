#!/usr/bin/env python3
"""Lists the driver functions that cudarc can ask for and that driver.c does not export, as X(name) lines.
    unimplemented.py CUDARC'S-SYS-MOD.RS DRIVER.C CUDA.H"""
import re, sys

bindings, driver, header = (open(path).read() for path in sys.argv[1:])
wanted = set(re.findall(r"pub unsafe fn (cu[A-Z]\w+)\(", bindings))
defined = re.findall(r"^CUresult (cu\w+)\(", driver, re.M)
# cuda.h renames some functions: what driver.c defines as cuMemAlloc is exported as cuMemAlloc_v2, and only so.
renamed = dict(re.findall(r"#define (cu\w+)\s+(?:__CUDA_API_\w+\()?(cu\w+_v\d)\b", header))
exported = {renamed.get(name, name) for name in defined}
for name in sorted(wanted - exported):
    print(f"X({name})")
