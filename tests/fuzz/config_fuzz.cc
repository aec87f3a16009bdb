// A job's and the plugin's options as msgpack.
#include <string>

#include "driver/base/utf8.h"
#include "driver/config/plugin_config.h"
#include "driver/config/task_config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<TaskConfig> task = DecodeTaskConfig(bytes);
  if (task.ok()) {
    Require(IsUtf8(task->command) && task->command.find('\0') == std::string::npos);
    for (const std::string& argument : task->args) {
      Require(IsUtf8(argument) && argument.find('\0') == std::string::npos);
    }
  }
  (void)DecodePluginConfig(bytes);
  return 0;
}
