#include "driver/supervisor/init_protocol.h"

#include <cstring>
#include <utility>
#include <vector>

#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/supervisor/protocol.h"

namespace jenkins_agent {
namespace {

struct Header {
  char kind;
  uint32_t number;
  uint32_t error_code;
};

}  // namespace

absl::Status SendReport(int socket, const InitReport& report) {
  Header header = {};
  header.kind = static_cast<char>(report.kind);
  header.number = report.number;
  header.error_code = static_cast<uint32_t>(report.error.code());
  std::string data(reinterpret_cast<const char*>(&header), sizeof(header));
  absl::StrAppend(&data, report.error.message());
  std::vector<int> fds;
  if (report.payload) fds.push_back(report.payload.get());
  return SendPacket(socket, data, fds);
}

absl::StatusOr<InitReport> ReceiveReport(int socket) {
  ASSIGN_OR_RETURN(Packet packet, ReceivePacket(socket));
  Header header;
  if (packet.data.size() < sizeof(header)) {
    return absl::InternalError("report of pid 1 is too short");
  }
  std::memcpy(&header, packet.data.data(), sizeof(header));
  InitReport report;
  report.kind = static_cast<InitReport::Kind>(header.kind);
  report.number = header.number;
  report.error = absl::Status(static_cast<absl::StatusCode>(header.error_code),
                              packet.data.substr(sizeof(header)));
  if (!packet.fds.empty()) report.payload = std::move(packet.fds.front());
  return report;
}

absl::Status SendLaunch(int socket, const pb::ProgramSpec& program) {
  ASSIGN_OR_RETURN(const Fd memfd, MakeSealedMemfd("program", program.SerializeAsString()));
  return SendPacket(socket, "launch", {memfd.get()});
}

absl::StatusOr<pb::ProgramSpec> ReceiveLaunch(int socket) {
  ASSIGN_OR_RETURN(const Packet packet, ReceivePacket(socket));
  if (packet.fds.size() != 1) return absl::InternalError("launch request without a program");
  ASSIGN_OR_RETURN(const std::string bytes, ReadAll(packet.fds[0].get(), kMaxSpecBytes));
  pb::ProgramSpec program;
  if (!program.ParseFromString(bytes)) return absl::InternalError("launch request is garbled");
  return program;
}

}  // namespace jenkins_agent
