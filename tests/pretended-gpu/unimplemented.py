#!/usr/bin/env python3
"""Lists the driver functions that cudarc can ask for and that driver.c does not define, as X(name) lines."""
import re, sys
sys_rs, stub_c = sys.argv[1], sys.argv[2]
wanted = set(re.findall(r'pub unsafe fn (cu\w+)\(', open(sys_rs).read()))
here = set(re.findall(r'^CUresult (?:CUDAAPI )?(cu\w+)\(', open(stub_c).read(), re.M))
# cuda.h renames these: the symbol that is exported has the suffix.
renamed = dict(re.findall(r'#define (cu\w+)\s+(?:__CUDA_API_\w+\()?(cu\w+_v\d)\b', open(sys.argv[3]).read()))
exported = {renamed.get(name, name) for name in here} | here
for name in sorted(wanted - exported):
    print(f"X({name})")
