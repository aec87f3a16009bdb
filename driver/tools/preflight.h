// Which leg of an agent's way to its controller fails: HTTP, or the TCP port that the controller
// names (jenkins-agent.md 1.3, 2). For agents that do not get on; a start does not wait for it.
#pragma once

#include <string>

#include "driver/tools/http.h"
#include "driver/tools/request.h"

namespace jenkins_agent {

struct WayToController {
  std::string line;
  bool reached = false;  // each leg that was tried
};

// One line for the operator:
//   "the controller answers HTTP 200, but its agent port c:50000 cannot be reached (Connection
//    refused): open the port or set agent.tunnel"
//   "http://c:8080/: 503 Service Unavailable"
WayToController DescribeWayToController(HttpClient& http, const PreflightRequest& request);

// The preflight worker. stdin: the request (request.h) on one line, then open for as long as the
// answer is wanted; stdout: {"line":"..","reached":true}. Becomes nobody in the task's network
// before it talks to anyone. Exit code 1: cancelled, or the request is wrong.
int RunPreflightWorker(int in_fd, int out_fd);

}  // namespace jenkins_agent
