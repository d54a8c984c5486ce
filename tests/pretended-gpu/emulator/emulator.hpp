// What a CUDA C++ kernel of CubeCL's needs to run on the CPU: one block after the other, its threads as coroutines.
// Included by the kernel sources after translate.py, and by emulator.cpp, which owns the variables.
#pragma once
#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cmath>
#include <math.h>
#include <type_traits>
#include <utility>

struct uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct uint4 { unsigned x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct dim3 { unsigned x, y, z; };
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

namespace emu {
struct Thread {
    void *sp;
    char *stack;
    uint3 tid;
    int lane, warp;
    bool done;
    unsigned sequence; // of warp exchanges
};
struct Warp {
    int live, arrived;
    unsigned generation;
    uint64_t slot[2][32][16]; // a lane's registers of one exchange
};
extern Thread *self;
extern Warp *warps;
extern uint3 block_index;
extern dim3 block_dim, grid_dim;
extern unsigned char *shared;
extern bool coroutines; // false where no thread ever waits
void yield();
void sync_block();
void sync_warp();
void progress();
void complain(const char *what);
struct Map { // driver.c's
    uint64_t address, dims[5], strides[5];
    uint32_t box[5], element_strides[5], rank, type, interleave, swizzle, fill;
};
const Map *map_of(const void *descriptor);
void bulk_load(void *to, const void *descriptor, const int *coordinates, int rank);
static inline int lane() { return self->lane; }
} // namespace emu

#define threadIdx (emu::self->tid)
#define blockIdx (emu::block_index)
#define blockDim (emu::block_dim)
#define gridDim (emu::grid_dim)
static const int warpSize = 32;
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static

static inline void __syncthreads() { emu::sync_block(); }
static inline void __syncwarp(unsigned = ~0u) { emu::sync_warp(); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// ---------------------------------------------------------------- warps

namespace emu {
/// Every lane's value, once all lanes have given theirs.
template <class T> T exchanged(T value, int from) {
    static_assert(sizeof(T) <= 8, "");
    Warp &warp = warps[self->warp];
    unsigned buffer = self->sequence++ & 1;
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    warp.slot[buffer][self->lane][0] = bits;
    if (warp.live < 32 && block_dim.x * block_dim.y * block_dim.z >= 32) complain("a shuffle of a warp with lanes that have ended");
    sync_warp();
    T result;
    memcpy(&result, &warp.slot[buffer][from & 31][0], sizeof result);
    return result;
}
} // namespace emu
template <class T> T __shfl_sync(unsigned, T v, int from, int = 32) { return emu::exchanged(v, from); }
template <class T> T __shfl_xor_sync(unsigned, T v, int mask, int = 32) { return emu::exchanged(v, emu::lane() ^ mask); }
template <class T> T __shfl_down_sync(unsigned, T v, unsigned d, int = 32) { int to = emu::lane() + (int)d; return emu::exchanged(v, to > 31 ? emu::lane() : to); }
template <class T> T __shfl_up_sync(unsigned, T v, unsigned d, int = 32) { int to = emu::lane() - (int)d; return emu::exchanged(v, to < 0 ? emu::lane() : to); }
static inline unsigned __ballot_sync(unsigned, int predicate) {
    using namespace emu;
    Warp &warp = warps[self->warp];
    unsigned buffer = self->sequence++ & 1, result = 0;
    warp.slot[buffer][self->lane][0] = predicate != 0;
    sync_warp();
    for (int i = 0; i < 32; i++) result |= (unsigned)(warp.slot[buffer][i][0] & 1) << i;
    return result;
}
static inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, p) == ~0u; }
static inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }

// ---------------------------------------------------------------- numbers

template <class A, class B> static inline typename std::common_type<A, B>::type min(A a, B b) {
    using T = typename std::common_type<A, B>::type;
    if constexpr (std::is_floating_point<T>::value) return std::isnan((T)a) ? (T)b : (T)b < (T)a ? (T)b : (T)a;
    else return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> static inline typename std::common_type<A, B>::type max(A a, B b) {
    using T = typename std::common_type<A, B>::type;
    if constexpr (std::is_floating_point<T>::value) return std::isnan((T)a) ? (T)b : (T)a < (T)b ? (T)b : (T)a;
    else return (T)a < (T)b ? (T)b : (T)a;
}
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
#define __expf emu_expf
static inline float emu_expf(float x) { return expf(x); }
#define __logf emu_logf
static inline float emu_logf(float x) { return logf(x); }
#define __sinf emu_sinf
static inline float emu_sinf(float x) { return sinf(x); }
#define __cosf emu_cosf
static inline float emu_cosf(float x) { return cosf(x); }
#define __powf emu_powf
static inline float emu_powf(float x, float y) { return powf(x, y); }
#define __tanhf emu_tanhf
static inline float emu_tanhf(float x) { return tanhf(x); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return rsqrt(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fdividef(float x, float y) { return x / y; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)(((unsigned __int128)a * b) >> 64); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class T> T atomicAdd(T *at, T value) { T old = *at; *at = old + value; return old; }
template <class T> T atomicMax(T *at, T value) { T old = *at; *at = old < value ? value : old; return old; }
template <class T> T atomicMin(T *at, T value) { T old = *at; *at = value < old ? value : old; return old; }

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    static uint16_t round(float f) {
        uint32_t u;
        memcpy(&u, &f, 4);
        if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
        return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
    template <class T, class = typename std::enable_if<std::is_arithmetic<T>::value>::type> __nv_bfloat16(T v) : bits(round((float)v)) {}
    operator float() const { uint32_t u = (uint32_t)bits << 16; float f; memcpy(&f, &u, 4); return f; }
};
struct __half {
    _Float16 v;
    __half() = default;
    template <class T, class = typename std::enable_if<std::is_arithmetic<T>::value>::type> __half(T x) : v((_Float16)(float)x) {}
    operator float() const { return (float)v; }
};
#define EMU_16(H, H2)                                                                                                              \
    struct __attribute__((aligned(4))) H2 {                                                                                        \
        H x, y;                                                                                                                    \
        H2() = default;                                                                                                            \
        H2(H a, H b) : x(a), y(b) {}                                                                                               \
        explicit H2(H a) : x(a), y(a) {}                                                                                           \
        explicit H2(float a) : x(a), y(a) {}                                                                                       \
    };                                                                                                                             \
    static inline H operator+(H a, H b) { return H((float)a + (float)b); }                                                         \
    static inline H operator-(H a, H b) { return H((float)a - (float)b); }                                                         \
    static inline H operator*(H a, H b) { return H((float)a * (float)b); }                                                         \
    static inline H operator/(H a, H b) { return H((float)a / (float)b); }                                                         \
    static inline H operator-(H a) { return H(-(float)a); }                                                                        \
    static inline H &operator+=(H &a, H b) { return a = a + b; }                                                                   \
    static inline H &operator-=(H &a, H b) { return a = a - b; }                                                                   \
    static inline H &operator*=(H &a, H b) { return a = a * b; }                                                                   \
    static inline bool operator<(H a, H b) { return (float)a < (float)b; }                                                         \
    static inline bool operator>(H a, H b) { return (float)a > (float)b; }                                                         \
    static inline bool operator<=(H a, H b) { return (float)a <= (float)b; }                                                       \
    static inline bool operator>=(H a, H b) { return (float)a >= (float)b; }                                                       \
    static inline bool operator==(H a, H b) { return (float)a == (float)b; }                                                       \
    static inline bool operator!=(H a, H b) { return (float)a != (float)b; }                                                       \
    static inline H2 operator+(H2 a, H2 b) { return {a.x + b.x, a.y + b.y}; }                                                      \
    static inline H2 operator-(H2 a, H2 b) { return {a.x - b.x, a.y - b.y}; }                                                      \
    static inline H2 operator*(H2 a, H2 b) { return {a.x * b.x, a.y * b.y}; }                                                      \
    static inline H2 operator/(H2 a, H2 b) { return {a.x / b.x, a.y / b.y}; }                                                      \
    static inline H2 operator-(H2 a) { return {-a.x, -a.y}; }                                                                      \
    static inline H __hmax(H a, H b) { return H(max((float)a, (float)b)); }                                                        \
    static inline H __hmin(H a, H b) { return H(min((float)a, (float)b)); }                                                        \
    static inline H2 __hmax2(H2 a, H2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }                                          \
    static inline H2 __hmin2(H2 a, H2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }                                          \
    static inline H __habs(H a) { return H(fabsf(a)); }                                                                            \
    static inline H2 __habs2(H2 a) { return {__habs(a.x), __habs(a.y)}; }                                                          \
    static inline H __hfma(H a, H b, H c) { return H(fmaf(a, b, c)); }                                                             \
    static inline H2 __hfma2(H2 a, H2 b, H2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }                          \
    static inline bool __hisnan(H a) { return std::isnan((float)a); }                                                              \
    EMU_F(H, H2, exp) EMU_F(H, H2, log) EMU_F(H, H2, sin) EMU_F(H, H2, cos) EMU_F(H, H2, sqrt) EMU_F(H, H2, ceil)                  \
    EMU_F(H, H2, floor) EMU_F(H, H2, trunc) EMU_F(H, H2, rint)                                                                     \
    static inline H hrsqrt(H a) { return H(rsqrt((float)a)); }                                                                     \
    static inline H2 h2rsqrt(H2 a) { return {hrsqrt(a.x), hrsqrt(a.y)}; }                                                          \
    static inline H hrcp(H a) { return H(1.0f / (float)a); }                                                                       \
    static inline H2 h2rcp(H2 a) { return {hrcp(a.x), hrcp(a.y)}; }                                                                \
    static inline H htanh(H a) { return H(tanhf(a)); }                                                                             \
    static inline H2 h2tanh(H2 a) { return {htanh(a.x), htanh(a.y)}; }
#define EMU_F(H, H2, f)                                                                                                            \
    static inline H h##f(H a) { return H(std::f((float)a)); }                                                                      \
    static inline H2 h2##f(H2 a) { return {h##f(a.x), h##f(a.y)}; }
EMU_16(__nv_bfloat16, __nv_bfloat162)
EMU_16(__half, __half2)

// ---------------------------------------------------------------- tensor cores

namespace emu {
static inline float bits_as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t float_as_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
/// What the tensor cores see of an f32 register: the upper 19 bits.
static inline float as_tf32(float f) { return bits_as_float(float_as_bits(f) & 0xffffe000u); }
static inline float bf16_of(uint32_t pair, int i) { return bits_as_float((i ? pair >> 16 : pair & 0xffff) << 16); }
static inline float f16_of(uint32_t pair, int i) { uint16_t h = (uint16_t)(i ? pair >> 16 : pair); _Float16 v; memcpy(&v, &h, 2); return (float)v; }
enum Kind { TF32, BF16, F16 };
static inline float operand(Kind kind, const uint64_t *slot, int reg, int half) {
    uint32_t u = (uint32_t)slot[reg];
    return kind == TF32 ? as_tf32(bits_as_float(u)) : kind == BF16 ? bf16_of(u, half) : f16_of(u, half);
}
/// mma.sync.m16n8kK: every lane gives its registers, then computes its own four results from those of the others.
static inline void mma(Kind kind, int K, const uint32_t *a, const uint32_t *b, const float *c, float *d) {
    Warp &warp = warps[self->warp];
    unsigned buffer = self->sequence++ & 1;
    auto slots = warp.slot[buffer];
    int regs_a = 4, regs_b = 2;
    if (K == 16 && kind == TF32) complain("an mma shape that the emulator does not know");
    if (K == 8 && kind != TF32) regs_a = 2, regs_b = 1;
    for (int i = 0; i < regs_a; i++) slots[self->lane][i] = a[i];
    for (int i = 0; i < regs_b; i++) slots[self->lane][4 + i] = b[i];
    sync_warp();
    int group = self->lane / 4, quad = self->lane % 4;
    for (int out = 0; out < 4; out++) {
        int row = group + (out / 2) * 8, column = quad * 2 + out % 2;
        float sum = c[out];
        for (int k = 0; k < K; k++) {
            float x, y;
            if (kind == TF32) {
                x = operand(kind, slots[(row % 8) * 4 + k % 4], (row / 8) + (k / 4) * 2, 0);
                y = operand(kind, slots[column * 4 + k % 4], 4 + k / 4, 0);
            } else {
                int in_half = k % 8, reg = (row / 8) + (k / 8) * 2;
                x = operand(kind, slots[(row % 8) * 4 + in_half / 2], reg, in_half % 2);
                y = operand(kind, slots[column * 4 + in_half / 2], 4 + k / 8, in_half % 2);
            }
            sum += x * y;
        }
        d[out] = sum;
    }
}
/// ldmatrix: lane i points to row i; 8x8 tiles of 16 bits.
static inline void ldmatrix(uint32_t *registers, const void *row, int count, bool transposed) {
    Warp &warp = warps[self->warp];
    unsigned buffer = self->sequence++ & 1;
    warp.slot[buffer][self->lane][0] = (uint64_t)row;
    sync_warp();
    for (int m = 0; m < count; m++) {
        uint16_t pair[2];
        for (int i = 0; i < 2; i++) {
            int r = self->lane / 4, c = self->lane % 4 * 2 + i;
            if (transposed) std::swap(r, c);
            pair[i] = ((const uint16_t *)warp.slot[buffer][m * 8 + r][0])[c];
        }
        registers[m] = pair[0] | (uint32_t)pair[1] << 16;
    }
    sync_warp(); // the rows may be overwritten by a lane that runs ahead
}
static inline void stmatrix(const uint32_t *registers, void *row, int count, bool transposed) {
    Warp &warp = warps[self->warp];
    unsigned buffer = self->sequence++ & 1;
    warp.slot[buffer][self->lane][0] = (uint64_t)row;
    sync_warp();
    for (int m = 0; m < count; m++)
        for (int i = 0; i < 2; i++) {
            int r = self->lane / 4, c = self->lane % 4 * 2 + i;
            if (transposed) std::swap(r, c);
            ((uint16_t *)warp.slot[buffer][m * 8 + r][0])[c] = (uint16_t)(registers[m] >> (16 * i));
        }
    sync_warp();
}
} // namespace emu

static inline void __mma_m16n8k8_float_float_float(uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, float c0, float c1,
                                                   float c2, float c3, float &d0, float &d1, float &d2, float &d3) {
    uint32_t a[] = {a0, a1, a2, a3}, b[] = {b0, b1};
    float c[] = {c0, c1, c2, c3}, d[4];
    emu::mma(emu::TF32, 8, a, b, c, d);
    d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
}
#define EMU_MMA16(NAME, KIND)                                                                                                      \
    static inline void NAME(uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, float c0, float c1,      \
                            float c2, float c3, float &d0, float &d1, float &d2, float &d3) {                                      \
        uint32_t a[] = {a0, a1, a2, a3}, b[] = {b0, b1};                                                                           \
        float c[] = {c0, c1, c2, c3}, d[4];                                                                                        \
        emu::mma(KIND, 16, a, b, c, d);                                                                                            \
        d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];                                                                                \
    }
EMU_MMA16(__mma_m16n8k16___nv_bfloat16___nv_bfloat16_float, emu::BF16)
EMU_MMA16(__mma_m16n8k16___half___half_float, emu::F16)
#define EMU_LDST(T)                                                                                                                \
    static inline void __ldmatrix_m8n8_##T##_1x(uint32_t &a, const void *p) { emu::ldmatrix(&a, p, 1, false); }                    \
    static inline void __ldmatrix_m8n8_##T##_1x_trans(uint32_t &a, const void *p) { emu::ldmatrix(&a, p, 1, true); }               \
    static inline void __ldmatrix_m8n8_##T##_2x(uint32_t &a, uint32_t &b, const void *p) { uint32_t r[2]; emu::ldmatrix(r, p, 2, false); a = r[0], b = r[1]; } \
    static inline void __ldmatrix_m8n8_##T##_2x_trans(uint32_t &a, uint32_t &b, const void *p) { uint32_t r[2]; emu::ldmatrix(r, p, 2, true); a = r[0], b = r[1]; } \
    static inline void __ldmatrix_m8n8_##T##_4x(uint32_t &a, uint32_t &b, uint32_t &c, uint32_t &d, const void *p) { uint32_t r[4]; emu::ldmatrix(r, p, 4, false); a = r[0], b = r[1], c = r[2], d = r[3]; } \
    static inline void __ldmatrix_m8n8_##T##_4x_trans(uint32_t &a, uint32_t &b, uint32_t &c, uint32_t &d, const void *p) { uint32_t r[4]; emu::ldmatrix(r, p, 4, true); a = r[0], b = r[1], c = r[2], d = r[3]; } \
    static inline void __stmatrix_m8n8_##T##_1x(uint32_t a, void *p) { emu::stmatrix(&a, p, 1, false); }                           \
    static inline void __stmatrix_m8n8_##T##_1x_trans(uint32_t a, void *p) { emu::stmatrix(&a, p, 1, true); }                      \
    static inline void __stmatrix_m8n8_##T##_2x(uint32_t a, uint32_t b, void *p) { uint32_t r[] = {a, b}; emu::stmatrix(r, p, 2, false); } \
    static inline void __stmatrix_m8n8_##T##_2x_trans(uint32_t a, uint32_t b, void *p) { uint32_t r[] = {a, b}; emu::stmatrix(r, p, 2, true); } \
    static inline void __stmatrix_m8n8_##T##_4x(uint32_t a, uint32_t b, uint32_t c, uint32_t d, void *p) { uint32_t r[] = {a, b, c, d}; emu::stmatrix(r, p, 4, false); } \
    static inline void __stmatrix_m8n8_##T##_4x_trans(uint32_t a, uint32_t b, uint32_t c, uint32_t d, void *p) { uint32_t r[] = {a, b, c, d}; emu::stmatrix(r, p, 4, true); }
EMU_LDST(__nv_bfloat16)
EMU_LDST(__half)

/// wmma: lane 0 has the whole matrices and does the work, the others keep what they had. Nothing but these functions and loops
/// over all elements may touch a fragment.
namespace nvcuda { namespace wmma {
struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
namespace precision { struct tf32 {}; }
enum layout_t { mem_row_major, mem_col_major };
template <class T> struct stored { using type = T; };
template <> struct stored<precision::tf32> { using type = float; };
template <class Use, int M, int N, int K> struct sides;
template <int M, int N, int K> struct sides<matrix_a, M, N, K> { static const int rows = M, columns = K; };
template <int M, int N, int K> struct sides<matrix_b, M, N, K> { static const int rows = K, columns = N; };
template <int M, int N, int K> struct sides<accumulator, M, N, K> { static const int rows = M, columns = N; };
template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    using X = typename stored<T>::type;
    static const int rows = sides<Use, M, N, K>::rows, columns = sides<Use, M, N, K>::columns, num_elements = rows * columns;
    X x[num_elements]; // row by row
};
template <class U, int M, int N, int K, class T, class L, class V> void fill_fragment(fragment<U, M, N, K, T, L> &f, V value) {
    if (!emu::lane()) for (auto &x : f.x) x = value;
}
// CubeCL reads and writes shared memory around loads and stores of fragments without __syncwarp: the lanes of a warp wait here.
template <class F, class P> void load(F &f, const P *p, unsigned stride, bool by_row) {
    emu::sync_warp();
    if (!emu::lane()) for (int r = 0; r < F::rows; r++)
        for (int c = 0; c < F::columns; c++) f.x[r * F::columns + c] = by_row ? p[r * stride + c] : p[c * stride + r];
    emu::sync_warp();
}
template <class U, int M, int N, int K, class T, class L, class P> void load_matrix_sync(fragment<U, M, N, K, T, L> &f, const P *p, unsigned stride) {
    load(f, p, stride, std::is_same<L, row_major>::value);
}
template <class U, int M, int N, int K, class T, class L, class P> void load_matrix_sync(fragment<U, M, N, K, T, L> &f, const P *p, unsigned stride, layout_t layout) {
    load(f, p, stride, layout == mem_row_major);
}
template <class P, class U, int M, int N, int K, class T, class L> void store_matrix_sync(P *p, const fragment<U, M, N, K, T, L> &f, unsigned stride, layout_t layout) {
    emu::sync_warp();
    using F = fragment<U, M, N, K, T, L>;
    if (!emu::lane()) for (int r = 0; r < F::rows; r++)
        for (int c = 0; c < F::columns; c++) (layout == mem_row_major ? p[r * stride + c] : p[c * stride + r]) = f.x[r * F::columns + c];
    emu::sync_warp();
}
template <int M, int N, int K, class TA, class LA, class TB, class LB, class TC>
void mma_sync(fragment<accumulator, M, N, K, TC> &d, const fragment<matrix_a, M, N, K, TA, LA> &a, const fragment<matrix_b, M, N, K, TB, LB> &b,
              const fragment<accumulator, M, N, K, TC> &c) {
    if (emu::lane()) return;
    const bool tf32 = std::is_same<TA, precision::tf32>::value;
    for (int r = 0; r < M; r++) {
        float sum[N];
        for (int n = 0; n < N; n++) sum[n] = c.x[r * N + n];
        for (int k = 0; k < K; k++) {
            float x = a.x[r * K + k];
            if (tf32) x = emu::as_tf32(x);
            for (int n = 0; n < N; n++) { float y = b.x[k * N + n]; sum[n] += x * (tf32 ? emu::as_tf32(y) : y); }
        }
        for (int n = 0; n < N; n++) d.x[r * N + n] = sum[n];
    }
}
/// cvt.rna.tf32.f32: to the nearest, ties away from zero.
static inline float __float_to_tf32(float f) {
    uint32_t u = emu::float_as_bits(f);
    return (u & 0x7f800000) == 0x7f800000 ? f : emu::bits_as_float((u + 0x1000) & 0xffffe000u);
}
}} // namespace nvcuda::wmma

// ---------------------------------------------------------------- barriers and copies

namespace cooperative_groups {
struct thread_block { void sync() { emu::sync_block(); } };
static inline thread_block this_thread_block() { return {}; }
template <class G> void wait(const G &) {}
} // namespace cooperative_groups
namespace cuda {
enum thread_scope { thread_scope_thread, thread_scope_block };
/// An mbarrier: 8 bytes, as on the device.
template <thread_scope S> struct barrier {
    using arrival_token = unsigned;
    uint64_t expected : 12, pending : 12, phase : 8, transactions : 32;
    void settle() { if (!pending && !transactions) { phase = phase + 1; pending = expected; emu::progress(); } }
    arrival_token arrive(unsigned n = 1) {
        unsigned token = phase;
        if (pending < n) emu::complain("more arrivals than the barrier expects");
        pending = pending - n;
        emu::progress();
        settle();
        return token;
    }
    void wait(arrival_token token) { while (phase == token) emu::yield(); }
    void wait_parity(unsigned parity) { while ((phase & 1) == (parity & 1)) emu::yield(); }
    void arrive_and_wait() { wait(arrive()); }
    void expect(unsigned bytes) { transactions = transactions + bytes; }
    void complete(unsigned bytes) { transactions = transactions - bytes; settle(); }
};
template <thread_scope S> void init(barrier<S> *b, unsigned expected) { b->expected = b->pending = expected, b->phase = 0, b->transactions = 0; }
namespace device {
template <thread_scope S> unsigned barrier_arrive_tx(barrier<S> &b, unsigned n, unsigned bytes) {
    b.expect(bytes);
    unsigned token = b.phase;
    b.pending = b.pending - n;
    emu::progress();
    b.settle();
    return token;
}
template <thread_scope S> void barrier_expect_tx(barrier<S> &b, unsigned bytes) { b.expect(bytes); }
namespace experimental {
static inline void fence_proxy_async_shared_cta() {}
template <class B> void bulk(void *to, const void *map, std::initializer_list<int> at, B &bar) {
    emu::bulk_load(to, map, at.begin(), (int)at.size());
    const emu::Map *m = emu::map_of(map);
    unsigned bytes = m->type == 0 ? 1 : m->type == 1 || m->type == 6 || m->type == 9 ? 2 : m->type == 4 || m->type == 5 || m->type == 8 ? 8 : 4;
    for (unsigned i = 0; i < m->rank; i++) bytes *= m->box[i];
    bar.complete(bytes);
}
template <class B> void cp_async_bulk_tensor_1d_global_to_shared(void *to, const void *map, int a, B &bar) { bulk(to, map, {a}, bar); }
template <class B> void cp_async_bulk_tensor_2d_global_to_shared(void *to, const void *map, int a, int b, B &bar) { bulk(to, map, {a, b}, bar); }
template <class B> void cp_async_bulk_tensor_3d_global_to_shared(void *to, const void *map, int a, int b, int c, B &bar) { bulk(to, map, {a, b, c}, bar); }
template <class B> void cp_async_bulk_tensor_4d_global_to_shared(void *to, const void *map, int a, int b, int c, int d, B &bar) { bulk(to, map, {a, b, c, d}, bar); }
template <class B> void cp_async_bulk_tensor_5d_global_to_shared(void *to, const void *map, int a, int b, int c, int d, int e, B &bar) { bulk(to, map, {a, b, c, d, e}, bar); }
} // namespace experimental
} // namespace device
} // namespace cuda
template <class B> void __cp_async_arrive(B &) {}
template <size_t N> void __cp_async_shared_global(const void *from, void *to, int bytes) { memcpy(to, from, (size_t)bytes); memset((char *)to + bytes, 0, N - (size_t)bytes); }
template <size_t N> void __cp_async_shared_global(const void *from, void *to) { memcpy(to, from, N); }
