#include "driver/supervisor/exit_record.h"

#include "driver/base/file.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {
constexpr size_t kMaxExitRecordBytes = 64 << 10;
}  // namespace

absl::Status WriteExitRecord(int task_dir_fd, const pb::ExitRecord& record) {
  return WriteFileAtomicAt(task_dir_fd, kExitFile, record.SerializeAsString());
}

absl::StatusOr<std::optional<pb::ExitRecord>> ReadExitRecord(const std::string& task_dir) {
  const std::string path = absl::StrCat(task_dir, "/", kExitFile);
  const absl::StatusOr<std::string> bytes = ReadFile(path, kMaxExitRecordBytes);
  if (absl::IsNotFound(bytes.status())) return std::nullopt;
  RETURN_IF_ERROR(bytes.status());
  pb::ExitRecord record;
  if (!record.ParseFromString(*bytes)) {
    return absl::DataLossError(absl::StrCat(path, ": not an exit record"));
  }
  return record;
}

}  // namespace jenkins_agent
