#include "train/passing_comm.h"

#include <cstdlib>

namespace retort::train {

PassingComm::PassingComm(GatheredWeights& weights, comm::Comm& comm) : weights_(weights), comm_(comm) {
  weights_.pass_apart(true);
}

PassingComm::~PassingComm() { weights_.pass_apart(false); }

comm::Comm& PassingComm::after_passes() {
  weights_.go_along();
  return comm_;
}

comm::Pending PassingComm::all_reduce(at::Tensor tensor, comm::Reduce reduce) {
  return after_passes().all_reduce(std::move(tensor), reduce);
}
comm::Pending PassingComm::sum_tree(at::Tensor nodes_PN, int64_t leaves) {
  return after_passes().sum_tree(std::move(nodes_PN), leaves);
}
comm::Pending PassingComm::broadcast(at::Tensor tensor, int root) {
  return after_passes().broadcast(std::move(tensor), root);
}
comm::Pending PassingComm::all_gather(at::Tensor out, at::Tensor in) {
  return after_passes().all_gather(std::move(out), std::move(in));
}
comm::Pending PassingComm::all_to_all(std::vector<at::Tensor> out, at::Tensor in_N,
                                      std::vector<int64_t> bounds) {
  return after_passes().all_to_all(std::move(out), std::move(in_N), std::move(bounds));
}
comm::Pending PassingComm::exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) {
  return after_passes().exchange(std::move(send), std::move(receive));
}
void PassingComm::abort(const std::string& why, int exit_code) {
  comm_.abort(why, exit_code);
  std::abort();  // GCC does not see that the line above is the end
}
void PassingComm::barrier() { after_passes().barrier(); }

}  // namespace retort::train
