#include "driver/base/status.h"

#include <cstring>

namespace jenkins_agent {

absl::Status ErrnoStatus(absl::string_view what, int error_number) {
  return absl::ErrnoToStatus(error_number, what);
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
