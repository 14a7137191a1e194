// Memory that will be needed next, fetched into the second-level cache little by little during other work.
#pragma once
#include <stdint.h>

namespace westwind {
namespace {

// `rows` pieces of row_bytes, `stride` bytes apart.
class Region {
 public:
  Region() = default;
  template <class T>
  Region(const T* from, int64_t row, int64_t stride, int64_t rows)
      : row_(reinterpret_cast<const char*>(from)),
        row_bytes_(row * static_cast<int64_t>(sizeof(T))),
        stride_(stride * static_cast<int64_t>(sizeof(T))),
        rows_(rows) {}

  // To be fetched in that many calls.
  Region over(int64_t calls) const {
    Region r = *this;
    r.each_time_ = (rows_ * ((row_bytes_ + 63) / 64) + calls - 1) / calls;
    return r;
  }
  void fetch() {
    for (int64_t n = each_time_; n > 0 && rows_ > 0; --n) {
      __builtin_prefetch(row_ + at_, 0, 2);
      at_ += 64;
      if (at_ < row_bytes_) continue;
      at_ = 0;
      row_ += stride_;
      --rows_;
    }
  }

 private:
  const char* row_ = nullptr;
  int64_t row_bytes_ = 0, stride_ = 0, rows_ = 0;
  int64_t at_ = 0, each_time_ = 0;
};

struct Ahead {
  Region a, b, c;
  void fetch() {
    a.fetch();
    b.fetch();
    c.fetch();
  }
};

}  // namespace
}  // namespace westwind
