// What this machine can do at most: multiply-adds of f32 that stay in registers, and bytes read from memory. Prints one
// JSON line. Built by benchmarks/limits.mjs with -march=native.
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float vf __attribute__((vector_size(4 * kLanes)));
typedef long long vi __attribute__((vector_size(4 * kLanes)));

constexpr int kChains = 12;  // of sums: more than a fused multiply-add takes cycles, times two units
constexpr long kSteps = 20'000'000;
constexpr size_t kBytes = size_t{1} << 30;
constexpr int kTries = 8;

template <class Body>
double least_seconds(const Body& body) {
  double least = 1e9;
  for (int i = 0; i < kTries; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return least;
}

int main(int argc, char** argv) {
  const int threads = argc > 1 ? atoi(argv[1]) : omp_get_max_threads();
  omp_set_num_threads(threads);

  const double multiply = least_seconds([] {
#pragma omp parallel
    {
      vf sums[kChains], a = vf{} + 0.999f, b = vf{} + 1e-6f;
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) sums[i] = vf{} + static_cast<float>(i);
      for (long step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
        for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * a + b;
      }
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) asm volatile("" : : "x"(sums[i]));
    }
  });

  char* memory = static_cast<char*>(aligned_alloc(size_t{1} << 21, kBytes));
  if (memory == nullptr) return 1;
#pragma omp parallel for
  for (size_t i = 0; i < kBytes; i += 64) memory[i] = 1;
  const double read = least_seconds([&] {
    constexpr size_t kPart = size_t{1} << 20;
#pragma omp parallel for schedule(static)
    for (size_t part = 0; part < kBytes; part += kPart) {
      vi found[4] = {};
      for (size_t i = part; i < part + kPart; i += sizeof found) {
        for (size_t j = 0; j < 4; ++j) found[j] ^= *reinterpret_cast<const vi*>(memory + i + j * sizeof(vi));
      }
      for (vi& each : found) asm volatile("" : : "x"(each));
    }
  });
  free(memory);
  printf("{\"threads\":%d,\"lanes\":%d,\"gflops\":%.1f,\"read_gbs\":%.2f}\n", threads, kLanes,
         2e-9 * kLanes * kChains * kSteps * threads / multiply, 1e-9 * kBytes / read);
}
