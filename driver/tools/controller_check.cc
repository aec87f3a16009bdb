#include "driver/tools/controller_check.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "driver/base/file.h"
#include "driver/base/status.h"
#include "driver/tools/fetch.h"
#include "driver/tools/http.h"
#include "driver/tools/request.h"
#include "driver/tools/task_client.h"

namespace jenkins_agent {
namespace {

using Json = nlohmann::json;

absl::Status Check(int in_fd) {
  ASSIGN_OR_RETURN(const std::string line, ReadRequestLine(in_fd));
  ASSIGN_OR_RETURN(const AgentJarRequest request, ParseAgentJarRequest(line));
  ASSIGN_OR_RETURN(const std::unique_ptr<HttpClient> http, BecomeClientInTask(request, in_fd));
  Discovery discovery(*http, {request.urls, request.name, request.web_socket},
                      [](const std::string&) {});
  return discovery.AskOnce();
}

}  // namespace

int RunControllerCheck(int in_fd, int out_fd) {
  const absl::Status answer = Check(in_fd);
  const Json line = answer.ok() ? Json{{"state", "ready"}}
                                : Json{{"state", "failed"}, {"error", answer.message()}};
  // Texts of the controller need not be UTF-8. A plugin that is gone does not read this.
  WriteAll(out_fd, line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n").IgnoreError();
  return answer.ok() ? 0 : 1;
}

}  // namespace jenkins_agent
