// The line that a worker reads from its stdin.
#include "driver/tools/request.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  const absl::string_view line(reinterpret_cast<const char*>(data), size);
  const auto request = ParseAgentJarRequest(line);
  if (request.ok()) Require(request->urls.size() <= kMaxUrls);
  const auto preflight = ParsePreflightRequest(line);
  if (preflight.ok()) Require(!preflight->urls.empty() || !preflight->agent_port.empty());
  return 0;
}
