// The result of an op: ok, or a sentence for the user. No exceptions below the binding, and no allocation.
#pragma once

namespace westwind {

struct Status {
  bool ok = true;
  bool late = false;  // some op before this one went wrong, and the device tells only now
  char message[240] = {};
};

Status fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace westwind
