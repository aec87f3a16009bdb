// Status idioms that the packaged Abseil (20220623) lacks.
//
// Rule: the layer that knows the object adds its name, once:
//   RETURN_IF_ERROR(Mount(target), "mount ", target);   ->  "mount /proc: Operation not permitted"
#pragma once

#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

// Status for an errno value; message "<what>: <strerror>". The only place that translates errno.
absl::Status ErrnoStatus(absl::string_view what, int error_number = errno);

// The same status with `context` and ": " in front of its message. OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

namespace status_internal {
inline absl::Status AnnotateAll(absl::Status status) { return status; }
template <typename... Parts>
absl::Status AnnotateAll(const absl::Status& status, const Parts&... parts) {
  return Annotate(status, absl::StrCat(parts...));
}
}  // namespace status_internal
}  // namespace jenkins_agent

// RETURN_IF_ERROR(expr) or RETURN_IF_ERROR(expr, "context ", parts...).
#define RETURN_IF_ERROR(expr, ...)                                                              \
  do {                                                                                          \
    if (absl::Status _status = (expr); !_status.ok())                                           \
      return ::jenkins_agent::status_internal::AnnotateAll(_status __VA_OPT__(, ) __VA_ARGS__); \
  } while (false)

#define STATUS_CONCAT_INNER(a, b) a##b
#define STATUS_CONCAT(a, b) STATUS_CONCAT_INNER(a, b)

// ASSIGN_OR_RETURN(auto x, expr) or ASSIGN_OR_RETURN(auto x, expr, "context ", parts...).
#define ASSIGN_OR_RETURN(lhs, expr, ...) \
  ASSIGN_OR_RETURN_IMPL(STATUS_CONCAT(_status_or_, __LINE__), lhs, expr __VA_OPT__(, ) __VA_ARGS__)
#define ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr, ...)                                                 \
  auto tmp = (expr);                                                                               \
  if (!tmp.ok())                                                                                   \
    return ::jenkins_agent::status_internal::AnnotateAll(tmp.status() __VA_OPT__(, ) __VA_ARGS__); \
  lhs = *std::move(tmp)
