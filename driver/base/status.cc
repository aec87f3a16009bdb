#include "driver/base/status.h"

#include <cstring>

namespace jenkins_agent {
namespace {

constexpr size_t kMaxErrnoText = 64;  // "Unknown error N"; known ones are not copied

}  // namespace

absl::Status ErrnoStatus(absl::string_view what, int error_number) {
  // Not absl::ErrnoToStatus: at its first error that makes a table of all 135 messages, in the heap
  // of every pid 1.
  char buffer[kMaxErrnoText];
  const char* text = ::strerror_r(error_number, buffer, sizeof(buffer));  // GNU's, never null
  return absl::Status(absl::ErrnoToStatusCode(error_number), absl::StrCat(what, ": ", text));
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok() || context.empty()) return status;
  absl::string_view trimmed = context;
  while (!trimmed.empty() && (trimmed.back() == ' ' || trimmed.back() == ':')) {
    trimmed.remove_suffix(1);
  }
  absl::Status annotated(status.code(), absl::StrCat(trimmed, ": ", status.message()));
  status.ForEachPayload([&annotated](absl::string_view type_url, const absl::Cord& payload) {
    annotated.SetPayload(type_url, payload);
  });
  return annotated;
}

}  // namespace jenkins_agent
