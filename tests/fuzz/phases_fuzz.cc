// What a JVM prints, in pieces: the first byte says how long they are.
#include "absl/strings/string_view.h"
#include "driver/agent/phases.h"
#include "driver/base/utf8.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  if (size == 0) return 0;
  const size_t piece = data[0] + 1;
  absl::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  PhaseTracker tracker;
  tracker.OnLaunch();
  for (int stream = 1; !rest.empty(); stream = 3 - stream) {
    for (const PhaseChange& change : tracker.Feed(stream, rest.substr(0, piece))) {
      Require(IsUtf8(change.detail) && change.detail.find('\n') == std::string::npos);
    }
    rest.remove_prefix(std::min(piece, rest.size()));
  }
  (void)tracker.Finish();
  Require(IsUtf8(tracker.detail()) && IsUtf8(tracker.last_error()));
  return 0;
}
