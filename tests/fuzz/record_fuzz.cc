// driver_state, which Nomad kept for us, and handle.pb.
#include "driver/base/paths.h"
#include "driver/task/record.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  const StatePaths paths("/state");
  const absl::string_view bytes(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<pb::TaskRecord> record = DecodeRecord(bytes, paths, "boot");
  // What clean-up removes is never anything else than this task's directory.
  if (record.ok()) Require(record->task_dir() == paths.Task(record->task_id()));
  return 0;
}
