# Arrays, frames and estimators.
# %% case: computes with arrays and views of them
# %% before
import numpy as np

grid = np.arange(12.0).reshape(3, 4)
column = grid[:, 1]
table = np.zeros(3, dtype=[("x", "f8"), ("n", "i4")])
frozen = np.ones(3)
frozen.flags.writeable = False
# %% cell
grid *= 2
column += 1
table["x"] = [1, 2, 3]
rng = np.random.default_rng(0)
noise = rng.normal(size=(2, 3))
top = grid[grid > 10]
window = grid[1:, ::2]
names = np.array(["a", "bb"], dtype=object)
when = np.datetime64("2024-03-01") + np.arange(3)
masked = np.ma.masked_less(grid, 4)
scalar = np.float32(0.5)
try:
    frozen[0] = 2
except ValueError as error:
    refused = str(error)
print(grid.sum(), window.shape, refused)
grid
# %% after
column[0] = -5
print(grid[0, 1], window.base is not None)

# %% case: cleans a table
# %% needs: pandas
# %% before
import pandas as pd

raw = pd.DataFrame({"city": ["Rome", "oslo", None, "Rome"], "temp": [31.5, None, 12.0, 29.0], "n": [1, 2, 3, 4]})
same = raw
# %% cell
clean = raw.dropna(subset=["city"]).copy()
clean["city"] = clean["city"].str.title()
clean["temp"] = clean["temp"].fillna(clean["temp"].mean())
summary = clean.groupby("city")["temp"].agg(["mean", "count"])
raw["temp"] = raw["temp"].fillna(0)
raw.loc[1, "city"] = "Oslo"
raw.drop(columns="n", inplace=True)
print(clean.dtypes.to_dict()["temp"], len(clean))
summary
# %% after
print(same is raw, raw.columns.tolist(), raw.loc[1, "city"])

# %% case: joins, pivots and resamples
# %% needs: pandas
# %% before
import numpy as np
import pandas as pd

sales = pd.DataFrame({"day": pd.date_range("2024-01-01", periods=6, freq="D"), "shop": list("abaabb"), "sold": [3, 1, 4, 1, 5, 9]})
shops = pd.DataFrame({"shop": ["a", "b"], "city": ["Rome", "Oslo"]})
# %% cell
joined = sales.merge(shops, on="shop", how="left")
pivot = joined.pivot_table(index="city", values="sold", aggfunc="sum")
weekly = sales.set_index("day")["sold"].resample("3D").sum()
sales["rank"] = sales["sold"].rank(ascending=False)
sales["kind"] = pd.Categorical(np.where(sales["sold"] > 3, "high", "low"))
ranks = sales.sort_values("sold")["shop"].tolist()
weekly.head(2)

# %% case: describes a table
# %% needs: pandas
# %% before
import pandas as pd

df = pd.DataFrame({"a": range(5), "b": [0.5 * i for i in range(5)], "c": list("xyxyx")})
# %% cell
df.info()
print(df.describe().loc["mean"].to_dict())
df.head(3)

# %% case: fits an estimator
# %% needs: sklearn
# %% before
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X, y = make_classification(120, 6, random_state=0)
scaler = StandardScaler()
# %% cell
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=1)
scaler.fit(X_train)
pipe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
pipe.fit(X_train, y_train)
score = pipe.score(X_test, y_test)
print(f"{score:.3f}", scaler.n_samples_seen_)
# %% after
print(pipe.predict(X_test[:5]).tolist(), scaler.mean_.shape)

# %% case: shares memory between arrays and tensors
# %% before
import numpy as np
import torch

array = np.zeros(4)
tensor = torch.from_numpy(array)
stack = [array, array[1:3]]
# %% cell
tensor[0] = 5
array[1] = 6
stack[1][1] = 7
halves = torch.tensor(array).chunk(2)
back = tensor.numpy()
print(array, tensor)
# %% after
array[3] = 9
print(tensor[3].item(), stack[0] is array, stack[1][1], back[3])

# %% case: keeps a data set and a tokenizer
# %% before
import torch
from torch.utils.data import Dataset, Subset


class Tokenizer:
    def __init__(self):
        self.vocabulary = {"<unk>": 0}

    def __call__(self, text):
        return [self.vocabulary.setdefault(w, len(self.vocabulary)) for w in text.lower().split()]


class Reviews(Dataset):
    def __init__(self, rows, tokenizer):
        self.rows, self.tokenizer, self.reads = rows, tokenizer, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        self.reads += 1
        text, label = self.rows[i]
        return torch.tensor(self.tokenizer(text)), label


tokenizer = Tokenizer()
reviews = Reviews([("a good film", 1), ("a bad film", 0), ("good good", 1)], tokenizer)
# %% cell
part = Subset(reviews, [0, 2])
encoded = [(x.tolist(), y) for x, y in part]
padded = torch.nn.utils.rnn.pad_sequence([x for x, _ in reviews], batch_first=True)
print(len(tokenizer.vocabulary), reviews.reads)
padded
# %% after
print(part.dataset is reviews, reviews.tokenizer is tokenizer, tokenizer("a new film"))
