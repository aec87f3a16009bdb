// The line that a worker reads from its stdin.
#include "driver/tools/request.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  const auto request =
      ParseAgentJarRequest(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (request.ok()) Require(request->urls.size() <= kMaxUrls);
  return 0;
}
