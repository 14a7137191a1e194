#include "status.h"

#include <stdarg.h>
#include <stdio.h>

namespace westwind {

Status fail(const char* format, ...) {
  Status status;
  status.ok = false;
  va_list args;
  va_start(args, format);
  vsnprintf(status.message, sizeof status.message, format, args);
  va_end(args);
  return status;
}

}  // namespace westwind
