// The kernels, compiled into namespace ISA. Included by native.cpp alone, once for every LEVEL: what the
// compiler says of the instruction set (__AVX2__) does not follow its pragmas in every version.

namespace ISA {

#if LEVEL == 2
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int BLOCK = 8 * LANES;  // output channels of which the sums stay in registers
typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t Short8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef int Int8 __attribute__((vector_size(32), aligned(4), may_alias));

#include "vectors.h"
#include "norm.h"
#include "lif.h"
#include "bits.h"
#include "weights.h"
#include "spikes.h"
#include "conv.h"
#include "conv_grad.h"
#include "winograd.h"
#include "depthwise.h"
#include "attention.h"

}  // namespace ISA
